# pcmcache before every compile of a CMake build, and before every scan for modules:
#
#     cmake -DCMAKE_PROJECT_TOP_LEVEL_INCLUDES=/path/to/pcmcache.cmake ...
#
# or the same as a cache variable of a preset. The project itself needs no change. It does
#
#   - set CMAKE_C_COMPILER_LAUNCHER and CMAKE_CXX_COMPILER_LAUNCHER, unless somebody else did (an empty value counts);
#   - put pcmcache before clang-scan-deps, which no variable of CMake's does. Other scanners stay as they are.
#
# pcmcache is the program that PCMCACHE_PROGRAM names, else the one in PATH, else one beside this file, in the bin
# directory of the place where both are installed, or in target/release of the source tree. Without one the build goes on without a cache, and says so.
#
# Nothing is remembered but PCMCACHE_PROGRAM: each run of CMake works it out anew.

# This file is included twice in a run: as the first project() begins, when no language is known, and at the end of each
# project(), when the scanner is.
if(NOT DEFINED _pcmcache_summary)
  if(PCMCACHE_PROGRAM AND NOT EXISTS "${PCMCACHE_PROGRAM}")
    unset(PCMCACHE_PROGRAM CACHE)
  endif()
  find_program(PCMCACHE_PROGRAM pcmcache
    PATHS "${CMAKE_CURRENT_LIST_DIR}" "${CMAKE_CURRENT_LIST_DIR}/../bin" "${CMAKE_CURRENT_LIST_DIR}/../../bin"
          "${CMAKE_CURRENT_LIST_DIR}/../../../bin" "${CMAKE_CURRENT_LIST_DIR}/../../target/release"
    DOC "The compiler launcher with a cache"
    NO_CMAKE_FIND_ROOT_PATH)

  if(PCMCACHE_PROGRAM)
    set(_pcmcache_summary "pcmcache: ${PCMCACHE_PROGRAM}")
    foreach(_pcmcache_language IN ITEMS C CXX)
      if(DEFINED CMAKE_${_pcmcache_language}_COMPILER_LAUNCHER
          OR DEFINED ENV{CMAKE_${_pcmcache_language}_COMPILER_LAUNCHER})
        string(APPEND _pcmcache_summary ", not before ${_pcmcache_language}, which has a launcher")
      else()
        set(CMAKE_${_pcmcache_language}_COMPILER_LAUNCHER "${PCMCACHE_PROGRAM}")
      endif()
    endforeach()
    # A list of files since CMake 3.29; before that the place may be taken.
    if(CMAKE_VERSION VERSION_GREATER_EQUAL 3.29 OR NOT CMAKE_PROJECT_INCLUDE)
      list(APPEND CMAKE_PROJECT_INCLUDE "${CMAKE_CURRENT_LIST_FILE}")
    endif()
  else()
    set(_pcmcache_summary "pcmcache: not found, set PCMCACHE_PROGRAM; the build goes on without")
    message(STATUS "${_pcmcache_summary}")
    set(_pcmcache_said TRUE)
  endif()
endif()

# The rule's first word is the scanner. Where it is not clang-scan-deps, pcmcache would only hand it on.
if(PCMCACHE_PROGRAM AND CMAKE_CXX_SCANDEP_SOURCE AND CMAKE_CXX_COMPILER_CLANG_SCAN_DEPS)
  string(FIND "${CMAKE_CXX_SCANDEP_SOURCE}" "\"${CMAKE_CXX_COMPILER_CLANG_SCAN_DEPS}\"" _pcmcache_at)
  if(_pcmcache_at EQUAL 0)
    string(PREPEND CMAKE_CXX_SCANDEP_SOURCE "\"${PCMCACHE_PROGRAM}\" ")
    string(APPEND _pcmcache_summary ", before scans for modules too")
  endif()
  unset(_pcmcache_at)
endif()

get_property(_pcmcache_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
if(_pcmcache_languages AND NOT _pcmcache_said)
  message(STATUS "${_pcmcache_summary}")
  set(_pcmcache_said TRUE)
endif()
unset(_pcmcache_languages)
