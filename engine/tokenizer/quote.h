// Text out of files, as error messages show it.
#pragma once

#include <string>
#include <string_view>

namespace sirocco {

// In single quotes, on one line, valid UTF-8 whatever the text is, cut where it is long.
std::string Quote(std::string_view text);

}  // namespace sirocco
