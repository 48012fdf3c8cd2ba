// Limits that code with and without modules keeps to. Macros, since the preprocessor asks for them too.
#ifndef ATLAS_LIMITS_H
#define ATLAS_LIMITS_H

#define ATLAS_MAX_COLUMNS 12
#define ATLAS_MAX_TASKS 4096

#endif
