//! Three brokers with something between each two of them, and between each and its clients: a broker can be cut off from
//! the others, both ways, alone or from its clients as well. In: nothing. Out: the brokers, and the links that a test cuts.
//!
//! Each broker knows the others by name only, and looks names up in a file of its own: there stands an address of
//! loopback for each direction of each pair, at which a proxy listens. Clients are told the port of a proxy.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use super::free_ports;
use super::proxy::{Mode, Proxy};
use super::services::Private;

/// Name of the service and its folder.
const SERVICE: &str = "kafka-cluster";
const BROKERS: [u8; 3] = [1, 2, 3];

/// Stands for the clients in a link.
const CLIENTS: u8 = 0;

/// What goes from one broker, or the clients, to another broker.
struct Link {
    from: u8,
    to: u8,
    proxy: Proxy,
}

/// All that goes between the brokers: copies of records, heartbeats, votes.
pub struct Links {
    links: Vec<Link>,
    /// Where each broker answers in clear.
    clear: Vec<u16>,
}

impl Links {
    /// Starts three brokers of this test's own, all links open.
    pub fn start() -> (Private, Self) {
        let (mut links, mut clear) = (Vec::new(), Vec::new());
        let brokers = Private::prepared(SERVICE, |folder| {
            for kind in ["client", "internal", "controller"] {
                let ports = free_ports::<3>();
                if kind == "internal" {
                    clear = ports.to_vec();
                }
                for (broker, port) in BROKERS.into_iter().zip(ports) {
                    let file = folder.join(format!("port.{kind}-{broker}"));
                    std::fs::write(file, format!("{port}\n")).expect("the port is written");
                    if kind == "client" {
                        let [told] = free_ports();
                        let file = folder.join(format!("port.clients-{broker}"));
                        std::fs::write(file, format!("{told}\n")).expect("the port is written");
                        links.push(link(CLIENTS, broker, told, port));
                        continue;
                    }
                    let others = BROKERS.into_iter().filter(|from| *from != broker);
                    links.extend(others.map(|from| link(from, broker, port, port)));
                }
            }
            for broker in BROKERS {
                let mut hosts = String::from("127.0.0.1 localhost\n");
                for other in BROKERS {
                    let host = host(broker, other);
                    writeln!(hosts, "{host} broker-{other}").expect("a string takes all");
                }
                std::fs::write(folder.join(format!("hosts-{broker}")), hosts).expect("the names are written");
            }
        });
        (brokers, Self { links, clear })
    }

    /// Nothing goes between this broker and the others any more, nor between it and its clients where `wholly`. Silence by
    /// [`Mode::HalfOpen`], as where cables are cut; by [`Mode::Reset`] as where a wall is put up.
    pub fn cut(&self, broker: u8, wholly: bool, mode: Mode) {
        let of = self.links.iter().filter(|link| link.from == broker || link.to == broker);
        of.filter(|link| wholly || link.from != CLIENTS).for_each(|link| link.proxy.set(mode));
    }

    /// All goes on.
    pub fn heal(&self) {
        self.links.iter().for_each(|link| link.proxy.set(Mode::Pass));
    }

    /// Whether this broker says that so many are alive, itself too.
    pub fn sees(&self, broker: u8, count: usize) -> bool {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dev/services/kafka_ready.py");
        let at = format!("127.0.0.1:{}", self.clear[usize::from(broker) - 1]);
        let asked =
            Command::new("python3").args([script, &count.to_string(), &at]).stderr(Stdio::null()).status();
        asked.expect("python3 runs").success()
    }
}

/// Where a broker finds another one.
fn host(from: u8, to: u8) -> String {
    if from == to { "127.0.0.1".to_owned() } else { format!("127.0.{from}.{to}") }
}

/// A link from `at` on the side of `from` to the port of `to`.
fn link(from: u8, to: u8, at: u16, port: u16) -> Link {
    let at = match from {
        CLIENTS => format!("127.0.0.1:{at}"),
        _ => format!("{}:{at}", host(from, to)),
    };
    Link { from, to, proxy: Proxy::between(&at, &format!("127.0.0.1:{port}")) }
}
