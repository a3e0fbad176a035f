// Task<T>: the block layer's coroutine, and how plain code starts one. Primitives between tasks are in sync.h.
//
// Rules for coroutine code in block/ (some avoid bugs of GCC 12, the compiler of Debian 12):
//  - A coroutine takes its parameters by value, or by reference to something that outlives the co_await (`this`, a
//    caller's local that itself awaits). A capturing lambda must not be a coroutine: its captures die with the lambda.
//  - TRY cannot be used in a coroutine, and GCC 12 cannot compile a statement expression that holds a co_await. So
//  there
//    are two statement macros, whose operand may hold a co_await or be a plain Result:
//        CO_TRY(co_await file.flush());                            Result<void> (or a value to ignore)
//        CO_TRY_ASSIGN(auto table, co_await load_table(index));    declares (or assigns) the value
//    CO_TRY_ASSIGN is two statements: not as the lone body of an if or a loop.
//  - No braced temporaries with destructors inside a co_await operand (`co_await f({a, b})`, `co_await f(S{...})`): GCC
//  12
//    may destroy them twice. Name the object first. No co_await in `?:`, `&&`, `||` or a range-for's range.
#pragma once
#include "vmm/base/assert.h"
#include "vmm/base/result.h"

#include <coroutine>
#include <functional>
#include <optional>
#include <utility>

namespace vmm {
class EventLoop;
}

// Statement forms of TRY for coroutines that return Task<Result<T>>; see the rules above.
#define CO_TRY(expression)                                                                                             \
    do {                                                                                                               \
        auto co_try_result_ = (expression);                                                                            \
        if (!co_try_result_.ok()) [[unlikely]]                                                                         \
            co_return co_try_result_.error();                                                                          \
    } while (false)
#define CO_TRY_ASSIGN(target, expression)                                                                              \
    CO_TRY_ASSIGN_NAMED_(VMM_CO_JOIN_(co_try_result_, __LINE__), target, expression)
#define CO_TRY_ASSIGN_NAMED_(name, target, expression)                                                                 \
    auto name = (expression);                                                                                          \
    if (!name.ok()) [[unlikely]]                                                                                       \
        co_return name.error();                                                                                        \
    target = std::move(name).value()
#define VMM_CO_JOIN_(a, b) VMM_CO_JOIN2_(a, b)
#define VMM_CO_JOIN2_(a, b) a##b

namespace vmm::block {

template <class T> class Task;

namespace detail {
struct FinalAwaiter {
    bool await_ready() const noexcept { return false; }
    template <class Promise> std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> finished) noexcept {
        std::coroutine_handle<> next = finished.promise().continuation;
        return next ? next : std::noop_coroutine();
    }
    void await_resume() const noexcept {}
};
struct PromiseBase {
    std::coroutine_handle<> continuation;
    std::suspend_always initial_suspend() const noexcept { return {}; }
    FinalAwaiter final_suspend() const noexcept { return {}; }
    void unhandled_exception() const noexcept { VMM_UNREACHABLE(); } // nothing in block/ throws but bad_alloc
};
template <class T> struct Promise : PromiseBase {
    std::optional<T> value;
    Task<T> get_return_object();
    template <class U>
    requires std::is_convertible_v<U&&, T>
    void return_value(U&& result) { value.emplace(std::forward<U>(result)); }
    T take() { return std::move(*value); }
};
template <> struct Promise<void> : PromiseBase {
    Task<void> get_return_object();
    void return_void() const noexcept {}
    void take() const {}
};
} // namespace detail

// A lazy coroutine: nothing runs until it is awaited (or spawned, or run_blocking). Move-only; owns the frame, which is
// freed when the Task is destroyed. Awaiting runs it directly (no queue, no stack growth by loops); the awaiting
// coroutine goes on when the task has finished, on the loop's thread. Everything in block/ runs on that one thread.
// Frames come from malloc: glibc's per-thread cache makes one as cheap as a free list of our own.
template <class T> class [[nodiscard]] Task {
public:
    using promise_type = detail::Promise<T>;
    using Handle = std::coroutine_handle<promise_type>;

    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
    Task& operator=(Task&& other) noexcept {
        if (this != &other) {
            if (handle_) handle_.destroy();
            handle_ = std::exchange(other.handle_, {});
        }
        return *this;
    }
    ~Task() {
        if (handle_) handle_.destroy();
    }

    struct Awaiter {
        Handle handle;
        bool await_ready() const noexcept { return false; }
        // Runs the task; when it finishes without waiting, the awaiting coroutine just goes on. (Handing control over
        // by handle would need a tail call, which GCC makes only when optimizing: a loop over tasks that never wait
        // would eat the stack in other builds.)
        bool await_suspend(std::coroutine_handle<> awaiting) noexcept {
            handle.resume();
            if (handle.done()) return false;
            handle.promise().continuation = awaiting;
            return true;
        }
        T await_resume() { return handle.promise().take(); }
    };
    Awaiter operator co_await() && noexcept { return Awaiter{handle_}; }
    Awaiter operator co_await() & noexcept { return Awaiter{handle_}; }

private:
    friend promise_type;
    explicit Task(Handle handle) : handle_(handle) {}
    Handle handle_;
};

namespace detail {
template <class T> Task<T> Promise<T>::get_return_object() {
    return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() {
    return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}
// A coroutine nobody awaits: runs at once, frees itself at the end.
struct Detached {
    struct promise_type {
        Detached get_return_object() const noexcept { return {}; }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        std::suspend_never final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        void unhandled_exception() const noexcept { VMM_UNREACHABLE(); }
    };
};
// Runs `loop` until *done.
void run_until(EventLoop& loop, bool const& done);
template <class T> Detached store_result(Task<T> task, std::optional<T>& result, bool& done) {
    result.emplace(co_await std::move(task));
    done = true;
}
inline Detached signal_done(Task<void> task, bool& done) {
    co_await std::move(task);
    done = true;
}
template <class T> Detached call_with_result(Task<T> task, std::function<void(T)> then) {
    T result = co_await std::move(task);
    then(std::move(result));
}
inline Detached call_when_done(Task<void> task, std::function<void()> then) {
    co_await std::move(task);
    if (then) then();
}
} // namespace detail

// Starts `task` now, on the loop's thread; it runs until its first suspension before spawn returns and frees itself
// when done. `then` is called with its result: how callback code (devices, NBD sockets) meets the block layer.
inline void spawn(Task<void> task, std::function<void()> then = nullptr) {
    detail::call_when_done(std::move(task), std::move(then));
}
template <class T> void spawn(Task<T> task, std::function<void(T)> then) {
    detail::call_with_result(std::move(task), std::move(then));
}

// Starts `task` and handles events of `loop` on this thread until it has finished: for tools' main functions and tests.
// Never inside a task or a loop callback of the machine.
template <class T> T run_blocking(EventLoop& loop, Task<T> task) {
    std::optional<T> result;
    bool done = false;
    detail::store_result(std::move(task), result, done);
    detail::run_until(loop, done);
    return std::move(*result);
}
inline void run_blocking(EventLoop& loop, Task<void> task) {
    bool done = false;
    detail::signal_done(std::move(task), done);
    detail::run_until(loop, done);
}

} // namespace vmm::block
