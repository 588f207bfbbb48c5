//! Makes and sets up the sockets of measurements.

use std::io::{self, ErrorKind};
use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::{Endpoint, Error, PATIENCE, Trying};

/// A listener at `to`.
pub(crate) fn listen(to: &Endpoint, port: u16) -> Result<TcpListener, Error> {
    let address = to.bind_to(port);
    // std sets SO_REUSEADDR: a port with connections in TIME-WAIT is free.
    to.inside(|| TcpListener::bind(address).map_err(|source| Error::Listen { address, source }))
}

/// A UDP socket at `to`, with a buffer large enough to survive the other side's share of the processor.
pub(crate) fn receive(to: &Endpoint, port: u16) -> Result<UdpSocket, Error> {
    let address = to.bind_to(port);
    let socket =
        to.inside(|| UdpSocket::bind(address).map_err(|source| Error::Listen { address, source }))?;
    // Without the privilege to exceed the limit the default has to do.
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER);
    Ok(socket)
}

/// A UDP socket at `from` that speaks to `to` only.
pub(crate) fn send(from: &Endpoint, to: &Endpoint, port: u16) -> Result<UdpSocket, Error> {
    let (own, address) = (from.bind_to(0), to.connect_to(port));
    from.inside(|| {
        let socket = UdpSocket::bind(own).map_err(|source| Error::Listen { address: own, source })?;
        socket.connect(address).map_err(|source| Error::Connect { address, source })?;
        Ok(socket)
    })
}

/// A connection from `from` to a server at `to`, sent from the endpoint's own address.
pub(crate) fn connect(from: &Endpoint, to: &Endpoint, port: u16) -> Result<TcpStream, Error> {
    let address = to.connect_to(port);
    from.inside(|| connect_here(from, address))
}

/// The same in a thread that is inside already.
pub(crate) fn connect_here(from: &Endpoint, to: SocketAddrV4) -> Result<TcpStream, Error> {
    let failed = |source: io::Error| Error::Connect { address: to, source };
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        None,
    )
    .trying("make a socket")?;
    // The port is chosen when the destination is known: so it need not be free towards all destinations.
    set(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1).trying("set up a socket")?;
    rustix::net::bind(&socket, &from.bind_to(0)).map_err(|errno| failed(errno.into()))?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS) => {
            let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let mut ready = [PollFd::new(&socket, PollFlags::OUT)];
            match rustix::event::poll(&mut ready, Some(&patience)) {
                Ok(0) => return Err(failed(ErrorKind::TimedOut.into())),
                Ok(_) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
            match rustix::net::sockopt::socket_error(&socket) {
                Ok(Ok(())) => {}
                Ok(Err(errno)) | Err(errno) => return Err(failed(errno.into())),
            }
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false).trying("set up a connection")?;
    Ok(stream)
}

/// The next connection, as soon as it is there.
pub(crate) fn accept(listener: &TcpListener) -> Result<TcpStream, Error> {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let mut ready = [PollFd::new(listener, PollFlags::IN)];
    match rustix::event::poll(&mut ready, Some(&patience)).trying("wait for a connection")? {
        0 => Err(io::Error::from(ErrorKind::TimedOut)).trying("accept a connection"),
        _ => listener.accept().map(|(stream, _)| stream).trying("accept a connection"),
    }
}

/// Sets an option that is an int.
pub(crate) fn set(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes of `value`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for a moment of the measurement: this is what it consists of.
pub(crate) fn wait_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Whether a call only ran into its timeout.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// How long a thread sits in a call before it looks whether it is over.
pub(crate) const GLANCE: Duration = Duration::from_millis(50);

const RECEIVE_BUFFER: i32 = 8 << 20;
