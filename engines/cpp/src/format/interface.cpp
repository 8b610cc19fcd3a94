#include "format/interface.h"

namespace elastic {

OutputPort logits_port(std::int64_t vocab_size, bool every_token) {
  OutputPort port{"logits", "float32", {{0, "B"}}, {}, {}};
  if (every_token) port.shape.push_back({0, "T"});
  port.shape.push_back({vocab_size, {}});
  return port;
}

std::string shape_text(const std::vector<Dim>& shape) {
  std::string text;
  for (const Dim& dim : shape)
    text += (text.empty() ? "" : ", ") + (dim.symbol.empty() ? std::to_string(dim.size) : dim.symbol);
  return "[" + text + "]";
}

}  // namespace elastic
