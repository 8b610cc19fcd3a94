#include "text/byte_pairs.h"

#include <limits>
#include <queue>
#include <tuple>

#include "elastic_runtime/error.h"
#include "text/byte_letters.h"

namespace elastic {
namespace {

constexpr std::int64_t kMaxId = std::numeric_limits<std::int32_t>::max();

/// Whether a setting is as good as not there.
bool is_off(const Value* value) {
  return !value || value->is_null() || *value == false || *value == "" || *value == 0.0;
}

const Value& required(const Value& model, const char* name, bool is_right(const Value&),
                      const std::string& where) {
  static const Value kNone;
  const Value* found = find(model, name);
  if (!found || !is_right(*found)) {
    throw InputError(where + "." + name, "the model of a byte-level BPE tokenizer",
                     show_value(found ? *found : kNone), "pass token ids instead of text");
  }
  return *found;
}

/// Both parts of a merge: a pair, or a text with one space between them as older files have it.
std::pair<std::string, std::string> parts_of(const Value& merge, const std::string& where) {
  const Array* pair = if_array(merge);
  if (pair && pair->size() == 2 && (*pair)[0].is_string() && (*pair)[1].is_string()) {
    return {*if_text((*pair)[0]), *if_text((*pair)[1])};
  }
  const std::string* text = if_text(merge);
  const std::size_t space = text ? text->find(' ') : std::string::npos;
  if (space == std::string::npos || text->find(' ', space + 1) != std::string::npos)
    throw InputError(where, "two tokens to merge", show_value(merge));
  return {text->substr(0, space), text->substr(space + 1)};
}

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
}

/// A token of a piece while it is being merged; the list of those that are left goes by `before` and `next`.
struct Symbol {
  std::int32_t id;
  int before, next;
  bool merged = false;  // into the one before it
};

struct Candidate {
  std::uint32_t rank;
  int at;
  std::int32_t id;  // that the pair would become
  bool operator<(const Candidate& other) const { return std::tie(rank, at) > std::tie(other.rank, other.at); }
};

}  // namespace

BytePairs::BytePairs(const Value& model, const std::string& where) {
  required(model, "type", [](const Value& v) { return v == "BPE"; }, where);
  // A token for what is unknown is never met: every byte is known.
  for (const char* name : {"dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const Value* value = find(model, name);
    if (!is_off(value))
      throw InputError(where + "." + name, "none", show_value(*value), "pass token ids instead of text");
  }
  const Value* whole = find(model, "ignore_merges");
  whole_pieces_ = whole && *whole == true;
  read_vocabulary(model, where);
  read_merges(model, where + ".merges");
}

void BytePairs::read_vocabulary(const Value& model, const std::string& where) {
  const Value& tokens = required(model, "vocab", [](const Value& v) { return v.is_object(); }, where);
  ids_.reserve(tokens.size());
  std::unordered_map<std::int64_t, std::string_view> owners;
  for (const auto& [token, id] : tokens.items()) {
    const std::int64_t* number = if_integer(id);
    if (!number || *number < 0 || *number > kMaxId)
      throw InputError(where + ".vocab: " + in_quotes(show(token)), "a token id", show_value(id));
    const auto [owner, is_new] = owners.emplace(*number, ids_.emplace(token, *number).first->first);
    if (!is_new) {  // either might be meant when it is read
      throw InputError(where + ".vocab: " + in_quotes(show(token)), "an id of its own",
                       std::to_string(*number) + ", that of " + in_quotes(show(owner->second)),
                       "pass token ids instead of text");
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto id = id_of(letters_of(std::string(1, static_cast<char>(byte))));
    if (!id) {
      throw InputError(where + ".vocab", "a token for every byte", "none for byte " + std::to_string(byte),
                       "pass token ids instead of text");
    }
    bytes_[static_cast<std::size_t>(byte)] = static_cast<std::int32_t>(*id);
  }
}

void BytePairs::read_merges(const Value& model, const std::string& where) {
  const Value& list = required(
      model, "merges", [](const Value& v) { return v.is_array(); }, where.substr(0, where.rfind('.')));
  merges_.reserve(list.size());
  std::uint32_t rank = 0;
  for (const Value& merge : list) {
    const std::string place = where + "[" + std::to_string(rank) + "]";
    const auto [left, right] = parts_of(merge, place);
    std::int32_t ids[3];
    std::int32_t* next = ids;
    for (const std::string& token : {left, right, left + right}) {
      const auto id = id_of(token);
      if (!id)
        throw InputError(place, "tokens of the vocabulary", in_quotes(show(token)) + ", which is none");
      *next++ = static_cast<std::int32_t>(*id);
    }
    merges_[key_of(ids[0], ids[1])] = {rank++, ids[2]};  // of equal ones the last counts
  }
}

std::optional<std::int64_t> BytePairs::id_of(std::string_view token) const {
  const auto found = ids_.find(std::string(token));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const BytePairs::Merge* BytePairs::merge_of(std::int32_t left, std::int32_t right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void BytePairs::encode(std::string_view piece, std::vector<std::int64_t>& ids) const {
  if (whole_pieces_) {
    if (const auto id = id_of(letters_of(piece))) return ids.push_back(*id);
  }
  merge(piece, ids);
}

void BytePairs::merge(std::string_view piece, std::vector<std::int64_t>& ids) const {
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  const int count = static_cast<int>(piece.size());
  for (int i = 0; i < count; ++i) {
    symbols.push_back({bytes_[static_cast<unsigned char>(piece[static_cast<std::size_t>(i)])], i - 1,
                       i + 1 < count ? i + 1 : -1});
  }
  const auto symbol = [&](int at) -> Symbol& { return symbols[static_cast<std::size_t>(at)]; };
  std::priority_queue<Candidate> queue;
  const auto offer = [&](int at) {
    if (at < 0 || symbol(at).next < 0) return;
    if (const Merge* found = merge_of(symbol(at).id, symbol(symbol(at).next).id))
      queue.push({found->rank, at, found->id});
  };
  for (int i = 0; i < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbol(best.at);
    if (left.merged || left.next < 0) continue;
    // What stands here may have changed since. It is the id that is compared, as in the library: another pair
    // that becomes the same token takes this one's turn.
    const Merge* now = merge_of(left.id, symbol(left.next).id);
    if (!now || now->id != best.id) continue;
    symbol(left.next).merged = true;
    left = {best.id, left.before, symbol(left.next).next};
    if (left.next >= 0) symbol(left.next).before = best.at;
    offer(left.before);
    offer(best.at);
  }
  for (int at = count > 0 ? 0 : -1; at >= 0; at = symbol(at).next) ids.push_back(symbol(at).id);
}

}  // namespace elastic
