#include "vmm/machine/write_shortcuts.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

namespace vmm {

WriteShortcuts::~WriteShortcuts() {
    for (auto const& bell : bells_) loop_.unwatch(bell->event.get());
}

Result<void> WriteShortcuts::add(Doorbell doorbell, std::function<void(std::uint64_t times)> ring) {
    UniqueFd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event) return error_from_errno(errno, "an eventfd for a doorbell");
    bells_.push_back(std::make_unique<Bell>(Bell{doorbell, std::move(ring), std::move(event)}));
    Bell* bell = bells_.back().get();
    loop_.watch(bell->event.get(), Ready::read, [this, bell](Ready) { answer(*bell); });
    return {};
}

Result<void> WriteShortcuts::use(WriteShortcutEngine* engine) {
    if (!engine) return {};
    for (auto const& bell : bells_) TRY(engine->take_doorbell(bell->event.get(), bell->doorbell));
    for (LateWrites const& writes : late_) TRY(engine->take_late_writes(writes));
    return {};
}

void WriteShortcuts::settle() {
    for (auto const& bell : bells_) answer(*bell);
}

void WriteShortcuts::answer(Bell& bell) {
    std::uint64_t times = 0;
    if (read(bell.event.get(), &times, sizeof times) != sizeof times) return;
    MutexLock lock(device_lock_);
    bell.ring(times);
}

} // namespace vmm
