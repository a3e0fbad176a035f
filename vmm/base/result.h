// Result<T>: a value or an Error. The only way a failure of the outside world travels between modules.
#pragma once
#include "vmm/base/assert.h"
#include "vmm/base/error.h"

#include <optional>
#include <utility>
#include <variant>

namespace vmm {

template <class T> class [[nodiscard]] Result {
public:
    using value_type = T;
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(Error failure) : state_(std::in_place_index<1>, std::move(failure)) {}
    template <class U>
    requires(std::is_convertible_v<U&&, T> && !std::is_same_v<std::remove_cvref_t<U>, Result> &&
             !std::is_same_v<std::remove_cvref_t<U>, Error> && !std::is_same_v<std::remove_cvref_t<U>, T>)
        Result(U&& value)
        : state_(std::in_place_index<0>, std::forward<U>(value)) {}

    bool ok() const { return state_.index() == 0; }
    explicit operator bool() const { return ok(); }

    T& value() & { return check(), *std::get_if<0>(&state_); }
    T const& value() const& { return check(), *std::get_if<0>(&state_); }
    T&& value() && { return check(), std::move(*std::get_if<0>(&state_)); }
    T& operator*() & { return value(); }
    T const& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*this).value(); }
    T* operator->() { return &value(); }
    T const* operator->() const { return &value(); }

    Error const& error() const { return VMM_ASSERT(!ok()), *std::get_if<1>(&state_); }

private:
    void check() const { VMM_ASSERT(ok()); }
    std::variant<T, Error> state_;
};

template <> class [[nodiscard]] Result<void> {
public:
    using value_type = void;
    Result() = default;
    Result(Error failure) : error_(std::move(failure)) {}

    bool ok() const { return !error_.has_value(); }
    explicit operator bool() const { return ok(); }
    void value() const { VMM_ASSERT(ok()); }
    Error const& error() const { return VMM_ASSERT(!ok()), *error_; }

private:
    std::optional<Error> error_;
};

} // namespace vmm

// TRY(expression): the value of a Result, or return its error from the enclosing function. The one GNU extension we
// use.
#define TRY(expression)                                                                                                \
    ({                                                                                                                 \
        auto&& try_result_ = (expression);                                                                             \
        if (!try_result_.ok()) [[unlikely]]                                                                            \
            return try_result_.error();                                                                                \
        std::move(try_result_).value();                                                                                \
    })
