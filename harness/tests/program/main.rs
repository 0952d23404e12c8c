//! The program from outside: its command line, the archives it fetches from, its guests, Ctrl-C, and the pages about it.

mod acpi;
mod archive;
mod boot;
mod command_line;
mod documentation;
mod interrupt;
