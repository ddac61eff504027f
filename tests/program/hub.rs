//! A hub and its spokes, each on a host of its own: who gets which clients, and who may come from afar.

use std::net::SocketAddr;

use crate::testkit::keys::Keys;
use crate::testkit::net::{answer_to, check_echo, connect, is_turned_away, refused};
use crate::testkit::network::{self, Beyond, Star};
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::{NO_RESUMPTION, start_connector, start_receptor};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What the servers beside the hub say, each meant for one spoke; and those beside the spokes.
const FOR_SPOKES: [&str; 3] = ["for a", "for b", "for c"];
const OF_SPOKES: [&str; 3] = ["of a", "of b", "of c"];

/// A hub with an entrance and an exit for each of three spokes. Each of these has an exit for whatever
/// comes, an entrance, and a host with the name of another one.
struct World {
    star: Star,
    keys: Keys,
    hub_key: String,
    hub: Program,
    entrances: [SocketAddr; 3],
    /// Beside the hub, and beside the spokes.
    servers: [[Server; 3]; 2],
    ups: usize,
    downs: usize,
}

impl World {
    fn new() -> World {
        network::enter_new(65_536);
        let (star, keys) = (Star::lay_out(3), Keys::new());
        let hub_key = keys.make("hub");
        let near = FOR_SPOKES.map(Server::named);
        let far = [0, 1, 2].map(|spoke| star.at_spoke(spoke, || Server::named(OF_SPOKES[spoke])));
        let known = NAMES.map(|name| format!("peer:{name}={}", keys.make(name))).join(",");
        // With all lines, however many tunnels come and go.
        let mut words = [
            NAMES.map(|name| format!("PORT=127.0.0.1:0?peer={name}")),
            [0, 1, 2].map(|at| format!("DEST={}:peer={}", near[at].address(), NAMES[at])),
        ]
        .concat();
        words.extend([format!("TLSCONF=key:{},{known}", keys.path("hub").display()), "-vv".into()]);
        words.push(NO_RESUMPTION.into());
        let hub = start_receptor("0.0.0.0:0", &words);
        let entrances = [1, 2, 3].map(|nth| hub.nth_address_of("entrance listening", nth));
        let servers = [near, far];
        World { star, keys, hub_key, hub, entrances, servers, ups: 0, downs: 0 }
    }

    /// Starts a spoke, and waits until it is up at the hub, by its own name whatever it says.
    fn start(&mut self, spoke: usize) -> Program {
        let port = self.hub.address_of("receptor listening").port();
        let hub = SocketAddr::new(self.star.hub_of(spoke), port);
        let exit = format!("DEST={}", self.servers[1][spoke].address());
        let own = self.keys.words(NAMES[spoke], &self.hub_key);
        let words = [exit, String::from("PORT=127.0.0.1:0"), own];
        let claimed = NAMES[(spoke + 1) % 3];
        let start = || start_connector(Protocol::V1, hub, &words);
        let program = self.star.at_spoke_called(spoke, claimed, start);
        self.ups += 1;
        let up = self.hub.wait_for_nth("tunnel up", self.ups);
        assert_eq!(up["name"], NAMES[spoke], "{up}");
        program.wait_for("tunnel up");
        program
    }

    fn stop(&mut self, mut spoke: Program) {
        spoke.kill_9();
        self.downs += 1;
        self.hub.wait_for_nth("tunnel down", self.downs);
    }

    /// Clients of the hub's entrance reach this spoke's server, and clients of the spoke the server that the
    /// hub has for it.
    fn check(&self, spoke: usize, program: &Program) {
        let answer = answer_to("hello", self.entrances[spoke]);
        assert_eq!(answer, format!("{}\nhello", OF_SPOKES[spoke]));
        let entrance = program.address_of("entrance listening");
        let answer = self.star.at_spoke(spoke, || answer_to("hello", entrance));
        assert_eq!(answer, format!("{}\nhello", FOR_SPOKES[spoke]));
    }
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The first one of each order also goes, and comes back as the newest.
#[test]
fn spokes_have_their_own_clients_and_exits_in_whatever_order_they_come() {
    needs!(Namespaces, "ip");
    let mut world = World::new();
    for order in ORDERS {
        let mut programs = order.map(|spoke| world.start(spoke));
        order.iter().zip(&programs).for_each(|(&spoke, program)| world.check(spoke, program));
        let [first, rest @ ..] = programs;
        world.stop(first);
        is_turned_away(world.entrances[order[0]]);
        order[1..].iter().zip(&rest).for_each(|(&spoke, program)| world.check(spoke, program));
        let [second, third] = rest;
        programs = [world.start(order[0]), second, third];
        order.iter().zip(&programs).for_each(|(&spoke, program)| world.check(spoke, program));
        programs.into_iter().for_each(|program| world.stop(program));
    }
    // Each was there twice in an order, or thrice; nobody was served by another one.
    let times = |spoke| ORDERS.iter().map(|order| if order[0] == spoke { 2 } else { 3 }).sum();
    let expected: [usize; 3] = [0, 1, 2].map(times);
    for servers in &world.servers {
        assert_eq!(servers.each_ref().map(Server::served), expected);
    }
}

/// Where no `RELIABLE=` names it. What is at the receptor's entrances is judged as before.
#[test]
fn a_peer_of_another_network_comes_in_by_its_key() {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    let beyond = Beyond::lay_out();
    let (server, keys) = (Server::echo(), Keys::new());
    let [hub, spoke, _] = ["hub", "spoke", "stranger"].map(|name| keys.make(name));
    let words = |more: &[&str]| {
        let own = [format!("DEST={}", server.address()), keys.words("hub", &spoke)];
        own.into_iter().chain(more.iter().map(ToString::to_string)).collect::<Vec<_>>()
    };
    for (here, host) in Beyond::HERE.into_iter().zip(Beyond::HOST) {
        let here = |port| SocketAddr::new(here.parse().expect("an address"), port);
        let dial = |receptor: &Program, own: &str| {
            let address = here(receptor.address_of("receptor listening").port());
            let words = ["PORT=127.0.0.1:0".to_owned(), keys.words(own, &hub)];
            beyond.at_host(|| start_connector(Protocol::V1, address, &words))
        };
        let open = start_receptor(":0", &words(&["PORT=0"]));
        let stranger = dial(&open, "stranger");
        let reason = open.wait_for_reason("tunnel did not come up");
        assert!(reason.contains("is not known here"), "{reason}");
        stranger.wait_for_reason("tunnel did not come up");
        let connector = dial(&open, "spoke");
        connector.wait_for("tunnel up");
        let entrance = connector.address_of("entrance listening");
        check_echo(&beyond.at_host(|| connect(entrance)), 1, 100_000);
        let entrance = here(open.address_of("entrance listening").port());
        beyond.at_host(|| refused(host, entrance));
        open.wait_for("stream refused");
        assert_eq!((open.count("tunnel up"), stranger.count("tunnel up")), (1, 0));
        // With a list of addresses, the key alone does not suffice.
        let shut = start_receptor(":0", &words(&["RELIABLE=.localnet"]));
        let connector = dial(&shut, "spoke");
        let event = shut.wait_for("tunnel did not come up");
        assert_eq!(event["to_let_in"], format!("RELIABLE={host}"), "{event}");
        connector.wait_for_reason("tunnel did not come up");
        assert_eq!(shut.count("tunnel up"), 0);
    }
}
