// Which engine runs the machine: what -accel and friends ask for, or what suits the host.
#pragma once
#include "vmm/machine/pc/engines.h"
#include "vmm/options/config.h"

#include <memory>
#include <string>

namespace vmm {

struct ChosenEngine {
    std::unique_ptr<Engine> engine;
    std::string name; // "kvm" or "tcg"
    std::string why;  // one line, for the log and `info kvm`
};

// Tries the engines of `config.accels` in order, with a warning for each that cannot be had when another follows; with
// none named, KVM where the host can run it at full speed, else the translating engine. `api` outlives the engine.
// Errors: options out of place; no engine asked for can be had (every reason, with what to do).
Result<ChosenEngine> choose_engine(Config const& config, kvm::KvmApi& api, kvm::HostFacts const& host, Log& log);

} // namespace vmm
