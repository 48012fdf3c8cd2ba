// The old checksum code behind an interface of today.
module;

#include "classic/base64.h"
#include "classic/crc32.h"

export module atlas.checksum;

import std;

export namespace atlas {

class Checksum {
public:
    Checksum& add(std::string_view text) noexcept {
        crc_ = classic::crc32_more(crc_, text.data(), text.size());
        return *this;
    }

    std::uint32_t value() const noexcept { return crc_; }

    /// The four bytes, the highest first, in base64: short enough to read to somebody on the telephone.
    std::string spoken() const {
        std::string bytes;
        for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(crc_ >> shift & 0xFF);
        return classic::base64(bytes);
    }

private:
    std::uint32_t crc_ = classic::crc32_start;
};

} // namespace atlas
