// A request of the metrics endpoint and its answer, as text.
#pragma once

#include <string>
#include <string_view>

namespace sirocco {

// The longest request's head.
inline constexpr size_t kMaxHttpRequestBytes = 8192;

struct HttpRequest {
  int error = 0;          // what is wrong with it: 400, 405 or 505; 0: nothing
  bool head = false;      // HEAD, not GET
  std::string_view path;  // without what follows a question mark
};

// `head`: all up to the empty line, or as much as fits.
HttpRequest ParseHttpRequest(std::string_view head);

struct HttpPage {
  int status;
  std::string_view type;
  std::string body;
};

// For an error of a request.
HttpPage HttpErrorPage(int status);

// The whole answer, after which the connection is closed.
std::string HttpAnswer(const HttpPage& page, bool with_body);

}  // namespace sirocco
