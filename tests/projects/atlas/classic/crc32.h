#ifndef CLASSIC_CRC32_H
#define CLASSIC_CRC32_H

#include <stddef.h>
#include <stdint.h>

namespace classic {

/// What CRC-32 (IEEE 802.3) starts from.
inline constexpr uint32_t crc32_start = 0;

/// The checksum of what was seen so far, in `crc`, and `size` more bytes.
uint32_t crc32_more(uint32_t crc, const void* data, size_t size) noexcept;

} // namespace classic

#endif
