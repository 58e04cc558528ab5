// What a process needs that lives long, before it does anything else.
#pragma once

namespace sirocco {

// Before there are threads.
// - Descriptors 0 to 2 are there: of those that are closed, nothing is read, and what is written is
//   lost. A socket that took the place of standard error would be sent the log.
// - A reader that went away is an error of one write, not the end of the program.
// - Where a file that is mapped cannot be read (it was cut short, its disk fails), the program ends
//   with one line and status 1.
// - The order of locks is not checked.
void PrepareProcess();

// Whether all that was written to standard output has arrived.
bool OutputIsWhole();

}  // namespace sirocco
