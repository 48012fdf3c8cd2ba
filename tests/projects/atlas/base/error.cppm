// A value or why there is none.
export module atlas.error;

import std;

export namespace atlas {

struct Error {
    std::string where;
    std::string what;

    std::string text() const { return where + ": " + what; }
};

template <class T>
using Result = std::expected<T, Error>;

/// `return fail("plan line 3", "no task named {}", name);`
template <class... Args>
std::unexpected<Error> fail(std::string where, std::format_string<Args...> what, Args&&... args) {
    return std::unexpected(Error{std::move(where), std::format(what, std::forward<Args>(args)...)});
}

} // namespace atlas
