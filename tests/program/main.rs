//! The real program as its user sees it: processes, sockets, and logs. A module for each part: `cargo test --test program relay::`.

#[path = "../testkit/mod.rs"]
mod testkit;

mod access;
mod basic;
mod cli;
mod command;
mod datagram_services;
mod datagrams;
mod datagrams_mtu;
mod datagrams_relay;
mod datagrams_routing;
mod dial;
mod early;
mod engine;
mod exec;
mod faults;
mod fifo;
mod ftp;
mod inherited;
mod local_ports;
mod log;
mod manners;
mod options;
mod peer;
mod peer_v1;
mod ports;
mod ports_exit;
mod ports_socks;
mod privileges;
mod proxies;
mod proxies_alone;
mod proxy_header;
mod relay;
mod restart;
mod services;
mod socks;
mod splice;
mod spokes;
mod stdio;
mod stop;
mod strangers;
mod streams;
mod traces;
mod unix;
mod vanished;
