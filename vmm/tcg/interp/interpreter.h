// Interpreter: the portable back end. The oracle of the code generator, and the engine of hosts without one.
#pragma once
#include "vmm/tcg/interp/compile.h"

#include <memory>
#include <vector>

namespace vmm::tcg::interp {

class Interpreter final : public Backend {
public:
    // `context` and everything `guest` points to must outlive the interpreter.
    Interpreter(EngineContext& context, GuestInfo const& guest);

    std::unique_ptr<Translation> translate(ir::Block const& block) override;
    RunResult run(Translation& first) override;
    void link(LinkSite& site, Translation& to) override;
    void unlink(Translation& to) override;
    char const* name() const override { return "interp"; }

private:
    EngineContext& context_;
    Runtime runtime_;
    std::unique_ptr<Temp[]> temps_;
};

} // namespace vmm::tcg::interp
