//! Command lines, as a user of the library sees them: what they mean, and what is wrong with them.

mod errors;
mod examples;
mod hostlist;
mod in_list;
mod links;
mod one_file;
mod users;
mod ways;
