#include "engine/tokenizer/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace sirocco {
namespace {

struct Outcome {
  std::string text;
  std::optional<size_t> stop;
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  out << '"' << outcome.text << '"';
  if (outcome.stop) out << " stop " << *outcome.stop;
  return out;
}

struct Piece {
  std::string text;
  bool check = true;
};

Outcome Match(const std::vector<std::string>& stops, bool include,
              const std::vector<Piece>& pieces) {
  StopMatcher matcher(stops, include);
  Outcome outcome;
  for (const Piece& piece : pieces) {
    StopMatcher::Result result = matcher.Feed(piece.text, piece.check);
    outcome.text += result.text;
    if (result.stop) outcome.stop = result.stop;
  }
  outcome.text += matcher.Finish();
  return outcome;
}

// Every end in turn, every stop string at it.
Outcome Naive(const std::vector<std::string>& stops, bool include,
              const std::vector<Piece>& pieces) {
  std::string text;
  for (const Piece& piece : pieces) {
    for (char byte : piece.text) {
      text.push_back(byte);
      std::optional<size_t> best;
      for (size_t k = 0; k < stops.size(); ++k) {
        if (!piece.check || stops[k].empty() || text.size() < stops[k].size()) continue;
        if (text.compare(text.size() - stops[k].size(), stops[k].size(), stops[k]) != 0) continue;
        if (!best || stops[k].size() > stops[*best].size()) best = k;
      }
      if (!best) continue;
      if (!include) text.resize(text.size() - stops[*best].size());
      return {text, best};
    }
  }
  return {text, std::nullopt};
}

TEST(StopMatcherTest, CutsBeforeTheStop) {
  EXPECT_EQ(Match({"END"}, false, {{"some E"}, {"N"}, {"D more"}}), (Outcome{"some ", 0}));
  EXPECT_EQ(Match({"END"}, true, {{"some E"}, {"N"}, {"D more"}}), (Outcome{"some END", 0}));
  EXPECT_EQ(Match({"END"}, false, {{"some E"}, {"N"}}), (Outcome{"some EN", std::nullopt}));
}

TEST(StopMatcherTest, HoldsBackNoMoreThanNeeded) {
  StopMatcher matcher({"\n\nUser:", "xyz"}, false);
  EXPECT_EQ(matcher.Feed("hello\n", true).text, "hello");
  EXPECT_EQ(matcher.Feed("\n", true).text, "");
  EXPECT_EQ(matcher.Feed("\n", true).text, "\n");
  EXPECT_EQ(matcher.Feed("Us", true).text, "");
  EXPECT_EQ(matcher.Feed("ual", true).text, "\n\nUsual");
  EXPECT_EQ(matcher.Feed("xy", true).text, "");
  EXPECT_EQ(matcher.Finish(), "xy");
}

TEST(StopMatcherTest, TheFirstEndDecidesThenTheLength) {
  EXPECT_EQ(Match({"abcd", "bc"}, false, {{"xabcd"}}), (Outcome{"xa", 1}));
  EXPECT_EQ(Match({"D", "END"}, false, {{"xEND"}}), (Outcome{"x", 1}));
  EXPECT_EQ(Match({"ab", "ab"}, false, {{"ab"}}), (Outcome{"", 0}));
}

TEST(StopMatcherTest, NothingFollowsAMatch) {
  StopMatcher matcher({"."}, true);
  EXPECT_EQ(matcher.Feed("a.b", true).text, "a.");
  EXPECT_EQ(matcher.Feed("c.d", true).text, "");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, NoMatchEndsWhereNobodyLooks) {
  EXPECT_EQ(Match({"ab"}, false, {{"xab", false}, {"yab", true}}), (Outcome{"xaby", 0}));
  EXPECT_EQ(Match({"ab"}, false, {{"xa", false}, {"b", true}}), (Outcome{"x", 0}));
  EXPECT_EQ(Match({"aa"}, false, {{"aa", false}, {"a", true}}), (Outcome{"a", 0}));
}

TEST(StopMatcherTest, EmptyStopsAreNeverFound) {
  EXPECT_EQ(Match({"", "b"}, false, {{"ab"}}), (Outcome{"a", 1}));
  EXPECT_EQ(Match({}, false, {{"ab"}}), (Outcome{"ab", std::nullopt}));
}

TEST(StopMatcherTest, CharactersStayWhole) {
  StopMatcher matcher({"\u00e9!"}, false);
  EXPECT_EQ(matcher.Feed("caf\u00e8", true).text, "caf\u00e8");
  EXPECT_EQ(matcher.Feed("caf\u00e9", true).text, "caf");
  EXPECT_EQ(matcher.Feed("?", true).text, "\u00e9?");
}

TEST(StopMatcherTest, AgreesWithASearchOnRandomText) {
  std::mt19937 random(3);
  const auto word = [&](size_t least, size_t most) {
    std::string text;
    const size_t size = least + random() % (most - least + 1);
    while (text.size() < size) text.push_back("aab"[random() % 3]);
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) stop = word(1, 6);
    std::vector<Piece> pieces(random() % 8);
    size_t unchecked = random() % 4;
    for (Piece& piece : pieces) {
      piece = {word(0, 5), unchecked == 0};
      unchecked -= unchecked > 0;
    }
    const bool include = random() % 2 == 0;
    ASSERT_EQ(Match(stops, include, pieces), Naive(stops, include, pieces)) << "round " << round;
  }
}

TEST(StopMatcherTest, ReleasesOnlyWhatNoStopCanReach) {
  std::mt19937 random(4);
  for (int round = 0; round < 2000; ++round) {
    const std::vector<std::string> stops = {"aab", "abab", "bb"};
    StopMatcher matcher(stops, false);
    std::string seen;
    std::string shown;
    for (int i = 0; i < 12; ++i) {
      const std::string piece(1, "ab"[random() % 2]);
      seen += piece;
      StopMatcher::Result result = matcher.Feed(piece, true);
      shown += result.text;
      if (result.stop) break;
      const std::string held = seen.substr(shown.size());
      EXPECT_EQ(shown + held, seen);
      size_t longest = 0;  // suffix that begins a stop
      for (const std::string& stop : stops) {
        for (size_t n = 1; n < stop.size() && n <= seen.size(); ++n) {
          if (seen.compare(seen.size() - n, n, stop, 0, n) == 0) longest = std::max(longest, n);
        }
      }
      ASSERT_EQ(held.size(), longest) << seen;
    }
  }
}

}  // namespace
}  // namespace sirocco
