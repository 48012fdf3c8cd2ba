#include "classic/crc32.h"

#include <array>

namespace classic {
namespace {

constexpr uint32_t polynomial = 0xEDB88320;

constexpr std::array<uint32_t, 256> make_table() {
    std::array<uint32_t, 256> table{};
    for (uint32_t byte = 0; byte < table.size(); ++byte) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? polynomial : 0);
        table[byte] = crc;
    }
    return table;
}

constexpr auto table = make_table();

} // namespace

uint32_t crc32_more(uint32_t crc, const void* data, size_t size) noexcept {
    crc = ~crc;
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < size; ++i) crc = (crc >> 8) ^ table[(crc ^ bytes[i]) & 0xFF];
    return ~crc;
}

} // namespace classic
