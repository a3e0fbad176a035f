#include "block/nbd/gnutls_library.h"

#include <dlfcn.h>

#include <cerrno>

namespace vmm::block::nbd {

Result<std::shared_ptr<GnutlsLibrary const>> GnutlsLibrary::load() {
    // Never closed: threads and exit handlers of the libraries behind it would lose their code.
    void* handle = ::dlopen("libgnutls.so.30", RTLD_NOW | RTLD_LOCAL);
    if (!handle) return Error(fmt::format("TLS is not available: {}", ::dlerror()), ENOTSUP);
    auto library = std::make_shared<GnutlsLibrary>();
#define X(name)                                                                                                        \
    library->name = reinterpret_cast<decltype(library->name)>(::dlsym(handle, "gnutls_" #name));                       \
    if (!library->name) return Error("TLS is not available: libgnutls.so.30 has no gnutls_" #name, ENOTSUP);
    VMM_GNUTLS_NAMES(X)
#undef X
    return std::shared_ptr<GnutlsLibrary const>(std::move(library));
}

} // namespace vmm::block::nbd
