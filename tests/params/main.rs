//! Command lines, as a user of the library sees them: their plans, and their errors.

mod at_peer;
mod encryption;
mod errors;
mod examples;
mod hostlist;
mod in_list;
mod links;
mod one_file;
mod pages;
mod privileges;
mod relays;
mod users;
mod ways;
