#include "server/metrics/http_request.h"

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

std::string_view ReasonOf(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Error";
  }
}

}  // namespace

HttpRequest ParseHttpRequest(std::string_view head) {
  HttpRequest out;
  const std::string_view line = head.substr(0, head.find("\r\n"));
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || line[first + 1] != '/') {
    out.error = 400;
    return out;
  }
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (target.find(' ') != std::string_view::npos || version.substr(0, 5) != "HTTP/") {
    out.error = 400;
  } else if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    out.error = 505;
  } else if (method != "GET" && method != "HEAD") {
    out.error = 405;
  }
  out.head = method == "HEAD";
  out.path = target.substr(0, target.find('?'));
  return out;
}

HttpPage HttpErrorPage(int status) {
  return {status, "text/plain; charset=utf-8", absl::StrCat(std::string(ReasonOf(status)), "\n")};
}

std::string HttpAnswer(const HttpPage& page, bool with_body) {
  return absl::StrCat("HTTP/1.1 ", page.status, " ", std::string(ReasonOf(page.status)),
                      "\r\nContent-Type: ", std::string(page.type),
                      "\r\nContent-Length: ", page.body.size(),
                      "\r\nCache-Control: no-store\r\nConnection: close\r\n",
                      page.status == 405 ? "Allow: GET, HEAD\r\n" : "", "\r\n",
                      with_body ? page.body : std::string());
}

}  // namespace sirocco
