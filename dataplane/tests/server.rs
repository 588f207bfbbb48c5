//! What requesters do to `dataplane.sock`, over a real socket: every wrong message gets a typed error,
//! loses its connection and its descriptors, and leaves the tables as they are.

use std::fs::File;
use std::io::{IoSlice, PipeReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use localvpc_api::message::*;
use localvpc_api::socket::{Channel, ReceiveError, Received};
use localvpc_api::tables::{Route, RouteTarget};
use localvpc_api::trace::{Protocol, TraceOutcome, TraceRequest};
use localvpc_api::{Generation, LinkId, NatGatewayId, Tables};
use localvpc_dataplane::fleet::Fleet;
use localvpc_dataplane::server::{BindError, Ending, Server};
use localvpc_engine::testing::{craft, lab};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// A dataplane without devices, in this process, with the worked packet walks' tables in force.
struct Plane {
    directory: tempfile::TempDir,
    server: Option<JoinHandle<Ending>>,
    /// Dropping it ends the server.
    end: Option<std::io::PipeWriter>,
}

impl Plane {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Server::bind(&directory.path().join("socket")).unwrap();
        let (reader, end) = std::io::pipe().unwrap();
        let thread = thread::spawn(move || {
            let fleet = Fleet::start(2, 1).unwrap();
            server.run(&fleet, &reader.into()).unwrap()
        });
        let plane = Self { directory, server: Some(thread), end: Some(end) };
        let installed = ask(&plane.greeted(), &Request::Install(lab::tables())).unwrap();
        assert!(matches!(installed, Reply::Installed { generation: Generation(1), .. }), "{installed:?}");
        plane
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn connect(&self) -> Channel {
        let channel = Channel::connect(&self.path()).unwrap();
        channel.limit(Some(Duration::from_secs(20))).unwrap();
        channel
    }

    fn greeted(&self) -> Channel {
        let channel = self.connect();
        let welcome = ask(&channel, &Request::Hello { protocol: PROTOCOL }).unwrap();
        assert!(matches!(welcome, Reply::Welcome { workers: 2, .. }), "{welcome:?}");
        channel
    }

    /// Asserts that generation 1 is in force, by its number and by what it decides.
    fn assert_untouched(&self) {
        let channel = self.greeted();
        let Ok(Reply::Status(status)) = ask(&channel, &Request::Status) else { panic!("no status") };
        assert_eq!((status.generation, status.links.len()), (Generation(1), 0));
        let tuple = craft::tuple(Protocol::TCP, "10.0.2.20:1234", "10.0.2.30:5432");
        let request = TraceRequest { link: lab::APP.1, tuple, reply: false };
        let Ok(Reply::Trace(report)) = ask(&channel, &Request::Trace(request)) else { panic!("no trace") };
        assert_eq!(report.forward.outcome, TraceOutcome::Delivered(lab::DB.1));
    }

    fn ending(mut self) -> Ending {
        self.end.take();
        self.server.take().unwrap().join().unwrap()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.end.take();
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn ask(channel: &Channel, request: &Request) -> Result<Reply, ReceiveError> {
    channel.send(7, request, &[]).unwrap();
    let Received { id, content, descriptors } = channel.receive()?;
    assert_eq!((id, descriptors.len()), (7, 0));
    Ok(content)
}

/// Sends `packet` as it is.
fn send_raw(channel: &Channel, packet: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    rustix::net::sendmsg(channel, &[IoSlice::new(packet)], &mut control, SendFlags::empty()).unwrap();
}

fn error(channel: &Channel) -> Error {
    match channel.receive::<Reply>() {
        Ok(Received { content: Reply::Error(error), .. }) => error,
        other => panic!("expected an error, got {other:?}"),
    }
}

/// The error that is answered, after which the connection is closed.
fn final_error(channel: &Channel) -> Error {
    let error = error(channel);
    match channel.receive::<Reply>() {
        Err(ReceiveError::Closed) => error,
        // Closed while something that was sent had not been read.
        Err(ReceiveError::Io(reset)) if reset.kind() == std::io::ErrorKind::ConnectionReset => error,
        other => panic!("the connection should be closed after {error:?}, got {other:?}"),
    }
}

fn json(body: Body<Request>) -> Vec<u8> {
    serde_json::to_vec(&Envelope { id: 7, body }).unwrap()
}

fn memfd(content: &[u8], seals: SealFlags) -> OwnedFd {
    let memfd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let mut file = File::from(memfd);
    file.write_all(content).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

/// What the protocol asks for.
const SEALED: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

/// A descriptor to send away, and the means to see that all copies of it are closed.
fn token() -> (std::io::PipeWriter, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    (writer, reader)
}

#[test]
fn the_first_message_is_a_hello_in_our_protocol() {
    let plane = Plane::start();
    let channel = plane.connect();
    channel.send(7, &Request::Status, &[]).unwrap();
    assert_eq!(final_error(&channel), Error::ExpectedHello);
    let channel = plane.connect();
    let other = !PROTOCOL;
    channel.send(7, &Request::Hello { protocol: other }, &[]).unwrap();
    let expected = Error::WrongProtocol { offered: other, supported: PROTOCOL };
    assert_eq!(final_error(&channel), expected);
    plane.assert_untouched();
}

#[test]
fn garbage_half_messages_and_unknown_requests_are_malformed() {
    let plane = Plane::start();
    let install =
        json(Body::Inline(Request::Install(Tables { generation: Generation(2), ..Tables::default() })));
    let packets: &[&[u8]] = &[
        b"\0\xff\x80garbage",
        b"{}",
        b"null",
        br#"{"id":7,"body":{"inline":{"dance":{}}}}"#,
        br#"{"id":7,"body":{"inline":"status"},"more":1}"#,
        br#"{"id":-1,"body":{"inline":"status"}}"#,
        br#"{"id":7,"body":{"inline":{"install":{"generation":2}}}}"#,
        &install[..install.len() / 2],
        &[b'['; 60_000],
    ];
    for packet in packets {
        let channel = plane.greeted();
        send_raw(&channel, packet, &[]);
        let error = final_error(&channel);
        assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    }
    plane.assert_untouched();
}

#[test]
fn an_oversized_message_is_refused() {
    let plane = Plane::start();
    let channel = plane.greeted();
    let mut packet = json(Body::Inline(Request::Status));
    packet.resize(MAX_MESSAGE + 1, b' ');
    send_raw(&channel, &packet, &[]);
    assert_eq!(final_error(&channel), Error::TooLarge { limit: MAX_MESSAGE as u64 });
    let channel = plane.greeted();
    let body = memfd(b"", SEALED);
    send_raw(&channel, &json(Body::Memfd { length: MAX_BODY + 1 }), &[body.as_fd()]);
    assert_eq!(final_error(&channel), Error::TooLarge { limit: MAX_BODY });
    plane.assert_untouched();
}

#[test]
fn a_body_must_be_a_sealed_memfd_that_holds_a_request() {
    let plane = Plane::start();
    let next = Request::Install(Tables { generation: Generation(2), ..Tables::default() });
    let next = serde_json::to_vec(&next).unwrap();
    let cases: [(OwnedFd, u64, &str); 5] = [
        (memfd(&next, SealFlags::empty()), next.len() as u64, "must be sealed"),
        (memfd(&next, SealFlags::WRITE | SealFlags::SHRINK), next.len() as u64, "must be sealed"),
        (memfd(&next, SEALED), next.len() as u64 - 1, "were announced"),
        (memfd(&next[..9], SEALED), 9, "cannot be read"),
        (token().0.into(), next.len() as u64, "must be in a memfd"),
    ];
    for (body, length, complaint) in cases {
        let channel = plane.greeted();
        send_raw(&channel, &json(Body::Memfd { length }), &[body.as_fd()]);
        let error = final_error(&channel).to_string();
        assert!(error.contains(complaint), "{error:?} should say {complaint:?}");
    }
    let channel = plane.greeted();
    send_raw(&channel, &json(Body::Memfd { length: 9 }), &[]);
    assert_eq!(final_error(&channel), Error::Descriptors { received: 0, expected: 1 });
    plane.assert_untouched();
}

#[test]
fn surplus_and_missing_descriptors_are_refused_and_none_is_kept() {
    let plane = Plane::start();
    let channel = plane.greeted();
    let (given, mut watched) = token();
    channel.send(7, &Request::Status, &[given.as_fd(), given.as_fd()]).unwrap();
    assert_eq!(final_error(&channel), Error::Descriptors { received: 2, expected: 0 });
    drop(given);
    assert_eq!(watched.read(&mut [0]).unwrap(), 0, "every copy is closed");

    let channel = plane.greeted();
    let attach = Request::AttachLink { link: LinkId(1), offload: Offload::VirtioHeader };
    channel.send(7, &attach, &[]).unwrap();
    assert_eq!(final_error(&channel), Error::Descriptors { received: 0, expected: 2 });
    plane.assert_untouched();
}

#[test]
fn a_descriptor_that_is_no_queue_is_named_and_closed() {
    let plane = Plane::start();
    let channel = plane.greeted();
    let (given, mut watched) = token();
    let attach = Request::AttachLink { link: LinkId(1), offload: Offload::VirtioHeader };
    channel.send(7, &attach, &[given.as_fd()]).unwrap();
    let refusal = error(&channel);
    assert!(
        matches!(&refusal, Error::BadDescriptor { index: 0, detail } if detail.contains("TUN")),
        "{refusal:?}"
    );
    drop(given);
    assert_eq!(watched.read(&mut [0]).unwrap(), 0, "every copy is closed");
    // The request was in order, so the connection stays.
    assert!(matches!(ask(&channel, &Request::Status), Ok(Reply::Status(_))));
    for request in [Request::DetachLink { link: LinkId(1) }, Request::HandBack { link: LinkId(1) }] {
        let refusal = ask(&channel, &request).unwrap();
        assert_eq!(refusal, Reply::Error(Error::LinkNotAttached { link: LinkId(1) }));
    }
    plane.assert_untouched();
}

#[test]
fn tables_that_are_stale_or_invalid_are_refused_by_row_and_the_old_ones_stay() {
    let plane = Plane::start();
    let channel = plane.greeted();
    let refusal = ask(&channel, &Request::Install(lab::tables())).unwrap();
    let stale = Error::StaleGeneration { offered: Generation(1), installed: Generation(1) };
    assert_eq!(refusal, Reply::Error(stale));
    let mut broken = Tables { generation: Generation(2), ..lab::tables() };
    broken.route_tables[0].routes.push(Route {
        destination: lab::net("198.18.0.0/15"),
        target: RouteTarget::NatGateway(NatGatewayId(77)),
    });
    let Reply::Error(Error::InvalidTables(row)) = ask(&channel, &Request::Install(broken)).unwrap() else {
        panic!("a dangling route was installed")
    };
    assert!(row.row.contains("route-table#1"), "{row}");
    plane.assert_untouched();
    let good = Tables { generation: Generation(2), ..lab::tables() };
    let installed = ask(&channel, &Request::Install(good)).unwrap();
    assert!(matches!(installed, Reply::Installed { generation: Generation(2), .. }), "{installed:?}");
}

#[test]
fn large_tables_come_in_a_memfd_and_large_replies_go_in_one() {
    let plane = Plane::start();
    let channel = plane.greeted();
    let mut tables = Tables { generation: Generation(2), ..lab::tables() };
    tables.internet_hosts =
        (0..40_000u32).map(|at| std::net::Ipv4Addr::from(0xcb00_7100 + at).into()).collect();
    assert!(serde_json::to_vec(&tables).unwrap().len() > MAX_MESSAGE);
    let installed = ask(&channel, &Request::Install(tables)).unwrap();
    assert!(matches!(installed, Reply::Installed { .. }), "{installed:?}");
    // Counters of two thousand ENIs exceed a message.
    let mut tables = Tables { generation: Generation(3), ..lab::tables() };
    tables.subnets[0].cidr = lab::net("10.0.16.0/20");
    tables.public_addresses.clear();
    tables.nat_gateways.clear();
    tables.route_tables[1].routes.pop();
    tables.enis.retain(|eni| eni.subnet != lab::PUBLIC);
    for at in 0..2000 {
        let id = (localvpc_api::EniId(100 + at), lab::WEB.1);
        let address = std::net::Ipv4Addr::from(0x0a00_1010 + at).to_string();
        tables.enis.push(lab::eni(id, lab::PUBLIC, &address, lab::WEB_GROUP));
    }
    let installed = ask(&channel, &Request::Install(tables)).unwrap();
    assert!(matches!(installed, Reply::Installed { .. }), "{installed:?}");
    let Reply::Counters(counters) = ask(&channel, &Request::Counters).unwrap() else { panic!("no counters") };
    assert_eq!(counters.enis.len(), 2002);
    assert!(serde_json::to_vec(&counters).unwrap().len() > MAX_MESSAGE);
}

#[test]
fn a_requester_that_takes_no_replies_loses_its_connection_and_delays_nobody() {
    let plane = Plane::start();
    let deaf = plane.greeted();
    let packet = json(Body::Inline(Request::Counters));
    let mut space = [];
    let closed = (0..100_000).any(|_| {
        let mut control = SendAncillaryBuffer::new(&mut space);
        rustix::net::sendmsg(&deaf, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL).is_err()
    });
    assert!(closed, "it was served for ever");
    plane.assert_untouched();
}

#[test]
fn another_user_is_turned_away() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let plane = Plane::start();
    for path in [plane.directory.path().to_path_buf(), plane.path()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let path = plane.path();
    // Credentials belong to a thread as far as the kernel is concerned, and this one ends here.
    let refusal = thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_uid(nobody).unwrap();
        final_error(&Channel::connect(&path).unwrap())
    });
    assert_eq!(refusal.join().unwrap(), Error::NotPermitted { uid: 65534 });
    plane.assert_untouched();
}

#[test]
fn a_living_dataplanes_socket_is_not_taken_and_a_dead_ones_is() {
    let plane = Plane::start();
    assert!(matches!(Server::bind(&plane.path()), Err(BindError::InUse(_))));
    plane.assert_untouched();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    drop(Server::bind(&path).unwrap());
    assert!(path.exists());
    assert!(Server::bind(&path).is_ok());
    let long = directory.path().join("x".repeat(120));
    assert!(matches!(Server::bind(&long), Err(BindError::PathTooLong(_))));
}

#[test]
fn it_ends_when_it_is_told_or_asked() {
    assert_eq!(Plane::start().ending(), Ending::Told);
    let plane = Plane::start();
    assert_eq!(ask(&plane.greeted(), &Request::Shutdown).unwrap(), Reply::Done);
    assert_eq!(plane.ending(), Ending::Requested);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_comes_the_server_answers_and_goes_on(
        packets in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 1..300),
                "\\{\"id\":[0-9]{1,3},\"body\":\\{\"(inline|memfd)\":[ -~]{0,40}\\}\\}".prop_map(String::into_bytes),
            ],
            1..8,
        ),
    ) {
        thread_local!(static PLANE: Plane = Plane::start());
        PLANE.with(|plane| {
            for packet in &packets {
                let channel = plane.greeted();
                send_raw(&channel, packet, &[]);
                // An answer of whatever kind; nothing that is drawn here installs anything.
                assert!(channel.receive::<Reply>().is_ok(), "{:?}", String::from_utf8_lossy(packet));
            }
            plane.assert_untouched();
        });
    }
}
