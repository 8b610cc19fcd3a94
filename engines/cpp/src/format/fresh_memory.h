// Memory for a copy that fills it. Private to the library; defined beside what else knows the system.
#pragma once

#include <cstddef>
#include <memory>

namespace elastic {

/// `size` bytes, not cleared. Large ones lie in huge pages where the system has them: of the time of a copy
/// into small ones most goes into page faults.
std::shared_ptr<std::byte[]> fresh_memory(std::size_t size);

}  // namespace elastic
