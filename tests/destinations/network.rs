//! Names, addresses, routes and proxies: a network that is not there, or not yet, or not to be trusted.
//!
//! What needs a network of its own gets a namespace in which there is only loopback; that needs root.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::tls::Authority;
use super::{LINES, Lane, side_by_side};
use crate::fault_server::{CANARY, FaultServer};
use crate::support::{number, wait_for};

/// An address that is no loopback, for documentation only, so that nobody is there unless a test puts it on `lo`.
const ELSEWHERE: &str = "192.0.2.1";

/// Runs a test on a thread in a network namespace in which not even loopback is up. The namespace goes with the
/// last process in it. `false` where there is no root and the test may be left out.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) -> bool {
    if !rustix::process::geteuid().is_root() {
        let may_skip = std::env::var_os("WATCHPOST_TEST_WITHOUT_ROOT").is_some_and(|value| value == "1");
        assert!(may_skip, "needs root for a network namespace; WATCHPOST_TEST_WITHOUT_ROOT=1 leaves it out");
        println!("left out: needs root for a network namespace");
        return false;
    }
    let thread = std::thread::spawn(move || {
        // A process holds the namespace until this thread, and whatever it starts, is in it.
        let mut holder =
            Command::new("unshare").args(["--net", "sleep", "60"]).spawn().expect("unshare runs");
        let link = format!("/proc/{}/ns/net", holder.id());
        let ours = fs::read_link("/proc/self/ns/net").expect("a namespace");
        wait_for("the namespace", || fs::read_link(&link).ok().filter(|theirs| *theirs != ours));
        let namespace = File::open(&link).expect("a namespace");
        let moved = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        let _ = holder.kill();
        let _ = holder.wait();
        moved.expect("root may move");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
    true
}

pub(crate) fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip runs (Debian package iproute2)");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_agent_that_starts_without_any_network_ships_once_there_is_one() {
    in_namespace(|| {
        // The status port takes any address, since not even loopback's is there.
        let port: u16 = 7866;
        let server = FaultServer::at("0.0.0.0:7867".parse().expect("an address"));
        let mut lane = Lane::prepare(server, "http", |agent| {
            agent.address = SocketAddr::from(([127, 0, 0, 1], port));
            agent.set("STATUS_ADDR", &format!("0.0.0.0:{port}"));
            agent.set("STATUS_TOKEN", "a-token-of-the-tests");
            agent.set("SUMO_URL", &format!("http://127.0.0.1:7867/receiver/v1/http/{CANARY}"));
        });
        lane.agent.start_without_waiting();
        lane.write(LINES);
        wait_for("the first failure", || {
            assert_eq!(lane.agent.ended(), None, "{}", lane.agent.output());
            lane.agent.output().contains("delivery failed and is retried: connect: network").then_some(())
        });
        ip(&["link", "set", "lo", "up"]);
        let status = wait_for("the lines to be shipped", || {
            let output = lane.agent.run(&["status", "--json"]);
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            (number(&status, "/ledger/lines/shipped") == LINES as u64).then_some(status)
        });
        assert!(crate::support::is_balanced(&status["ledger"]), "{}", status["ledger"]);
        assert!(number(&status, "/delivery/failures") > 0, "{}", status["delivery"]);
        lane.looks += 1;
        lane.finish();
    });
}

/// A name that is not known, and is in `/etc/hosts` later; an address without a route, which comes up later.
#[test]
fn names_and_routes_that_come_up_later_are_found_without_a_restart() {
    in_namespace(|| {
        ip(&["link", "set", "lo", "up"]);
        let name = || {
            let server = FaultServer::start();
            let url = server.url("http", "destination.invalid");
            let mut lane = Lane::prepare(server, "http", |agent| agent.set("SUMO_URL", &url));
            let hosts = lane.directory.path().join("hosts");
            fs::write(&hosts, "127.0.0.1 localhost\n").expect("written");
            // In a mount namespace of its own the agent reads this file of hosts.
            let agent = lane.agent.command(&["run"]);
            let mut command = Command::new("unshare");
            let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
            command
                .args(["--mount", "--propagation=slave", "sh", "-c", script])
                .arg(&hosts)
                .arg(agent.get_program());
            command.args(agent.get_args()).env_clear();
            command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
            lane.agent.start_as(&mut command);
            let knows = |_: &FaultServer| {
                fs::write(&hosts, "127.0.0.1 localhost destination.invalid\n").expect("written");
            };
            lane.suffers(("retrying", "connect: dns: "), |_| {}, knows);
            lane.finish();
        };
        let route = || {
            let server = FaultServer::at("0.0.0.0:0".parse().expect("an address"));
            let url = server.url("http", ELSEWHERE);
            let mut lane = Lane::start_with(server, "http", |agent| agent.set("SUMO_URL", &url));
            let comes = |_: &FaultServer| ip(&["address", "add", &format!("{ELSEWHERE}/32"), "dev", "lo"]);
            lane.suffers(("retrying", "connect: network unreachable"), |_| {}, comes);
            lane.finish();
        };
        side_by_side(vec![("name", Box::new(name)), ("route", Box::new(route))]);
    });
}

/// Nobody listens when the agent boots; then somebody does, goes away with every connection, and comes back.
#[test]
fn a_destination_that_is_absent_at_boot_or_later_is_awaited() {
    let mut server = FaultServer::start();
    server.leave();
    let mut lane = Lane::start_with(server, "http", |_| {});
    for _ in 0..2 {
        lane.server.leave();
        let before = lane.wait("delivery", |status| status["delivery"]["state"] != "off");
        lane.write(LINES);
        let told = lane.wait("a refused connection", |status| {
            number(status, "/delivery/failures") > number(&before, "/delivery/failures")
                && status["delivery"]["next_try_in_s"].is_number()
        });
        let delivery = &told["delivery"];
        assert_eq!(delivery["state"], "retrying", "{delivery}");
        assert_eq!(delivery["last_error"], "connect: connection refused", "{delivery}");
        lane.server.come_back();
        lane.wait_shipped("an absence");
    }
    let audit = lane.finish();
    assert_eq!(audit.repeats, 0, "where nobody listens nothing is sent");
}

/// A proxy that opens tunnels, or asks for credentials instead, and keeps what it was asked.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    refuses: Arc<AtomicBool>,
}

impl Proxy {
    fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (asked, refuses) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let proxy = Proxy { address, asked: Arc::clone(&asked), refuses: Arc::clone(&refuses) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (asked, refuses) = (Arc::clone(&asked), Arc::clone(&refuses));
                std::thread::spawn(move || tunnel(client, &asked, &refuses));
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Everything that the client says up to an empty line goes into the list, and what comes then to the one it names.
fn tunnel(mut client: TcpStream, asked: &Mutex<Vec<String>>, refuses: &AtomicBool) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    if refuses.load(Ordering::Relaxed) {
        let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(answer).ok();
    }
    let server = TcpStream::connect(target?).ok()?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut &server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    up.join().ok()
}

/// https goes through a tunnel, in which the proxy learns host and port. Plain http never goes to a proxy, which
/// would see the path, and the path is the credential.
#[test]
fn a_proxy_opens_tunnels_and_never_sees_the_path() {
    in_namespace(|| {
        ip(&["link", "set", "lo", "up"]);
        ip(&["address", "add", &format!("{ELSEWHERE}/32"), "dev", "lo"]);
        let proxy = Arc::new(Proxy::start());
        let authority = Arc::new(Authority::new("trusted"));
        let lane = {
            let (proxy, authority) = (Arc::clone(&proxy), Arc::clone(&authority));
            move |scheme: &str, variables: &[(&str, &str)]| {
                let server = FaultServer::at("0.0.0.0:0".parse().expect("an address"));
                let url = server.url(scheme, ELSEWHERE);
                if scheme == "https" {
                    server.set_tls(Some(authority.server(ELSEWHERE, |_| {})));
                }
                Lane::start_with(server, scheme, |agent| {
                    let directory = agent.directory.clone();
                    authority.is_trusted_by(agent, &directory);
                    agent.set("SUMO_URL", &url);
                    for (name, value) in variables {
                        let value = if value.is_empty() { proxy.url() } else { (*value).to_owned() };
                        agent.set_variable(name, &value);
                    }
                })
            }
        };
        let ships = |mut lane: Lane| {
            lane.write(LINES);
            lane.wait_shipped("the start");
            lane.finish();
        };
        ships(lane("http", &[("HTTP_PROXY", ""), ("http_proxy", ""), ("ALL_PROXY", "")]));
        ships(lane("https", &[("HTTPS_PROXY", ""), ("NO_PROXY", ELSEWHERE)]));
        assert_eq!(proxy.asked(), [""; 0], "neither plain http nor what NO_PROXY names goes there");

        ships(lane("https", &[("ALL_PROXY", "")]));
        assert!(!proxy.asked().is_empty(), "https goes through a tunnel");
        proxy.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();

        let mut tunnelled = lane("https", &[("HTTPS_PROXY", "")]);
        let port = tunnelled.server.address.port();
        let refuses = |server: &FaultServer| {
            server.close_idle();
            proxy.refuses.store(true, Ordering::Relaxed);
        };
        let opens = |_: &FaultServer| proxy.refuses.store(false, Ordering::Relaxed);
        tunnelled.suffers(("retrying", "connect: the proxy asks for credentials"), refuses, opens);
        tunnelled.finish();
        let asked = proxy.asked();
        let is_tunnel = |head: &String| head.starts_with(&format!("CONNECT {ELSEWHERE}:{port} HTTP/1.1\r\n"));
        assert!(asked.len() >= 2 && asked.iter().all(is_tunnel), "{asked:?}");
        assert!(!asked.concat().contains(CANARY), "{asked:?}");
    });
}
