#ifndef CLASSIC_BASE64_H
#define CLASSIC_BASE64_H

#include <string>

namespace classic {

/// Base64 with padding (RFC 4648, section 4).
std::string base64(const std::string& bytes);

} // namespace classic

#endif
