//! The web server that answers with what it saw.
//!
//! It stands at the far end of a lab's connections: its answer names the address and
//! port that reached it, which is what a NAT gateway or internet gateway made of the
//! sender's.
//!
//! - any path: `you are 203.0.113.20:40312`, or the same as JSON for `Accept: application/json`
//! - `/bytes/N`: N bytes, for throughput
//! - `/hold`: stays open; a line each second, or (PUT, POST) one line back per line received
//!
//! With [`Mode::Echo`] there is no HTTP: what comes in on a connection goes back.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::serve::{IncomingStream, Listener};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Frame, SizeHint};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

/// Most bytes that one `/bytes/N` returns.
pub const MAX_BYTES: u64 = 16 << 30;

/// What to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to bind every port on.
    pub bind: IpAddr,
    /// Ports; 0 lets the kernel choose.
    pub ports: Vec<u16>,
    /// Name of the instance or internet host that answers, for the JSON.
    pub host: Option<String>,
    /// What is spoken.
    pub mode: Mode,
}

/// What is spoken on the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// HTTP/1, plain on every port.
    Http,
    /// Bare TCP: every byte goes back.
    Echo,
}

/// Body of a JSON answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Who asked, as seen here.
    pub you: Endpoint,
    /// Which address and port were reached.
    pub me: Endpoint,
    /// The instance or internet host that answers.
    pub host: Option<String>,
    /// Method of the request.
    pub method: String,
    /// Path of the request.
    pub path: String,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// IP address.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
}

/// Why nothing could be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port could not be opened.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    Bind {
        /// The address and port.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Serving came to an end.
    #[error("the server stopped: {0}")]
    Io(#[from] io::Error),
}

/// Binds every port, calls `ready` with each address, then serves until the process ends.
///
/// # Errors
/// [`Error::Bind`] before anything is served if one of the ports cannot be opened.
pub async fn run(options: Options, mut ready: impl FnMut(SocketAddr)) -> Result<(), Error> {
    let mut listeners = Vec::new();
    for &port in &options.ports {
        let address = SocketAddr::new(options.bind, port);
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
        listeners.push(listener);
    }
    for listener in &listeners {
        ready(listener.local_addr()?);
    }
    let mut servers = tokio::task::JoinSet::new();
    for listener in listeners {
        let listener = Front(listener);
        match options.mode {
            Mode::Http => {
                let app = router(options.host.clone()).into_make_service_with_connect_info::<Peers>();
                servers.spawn(async move { axum::serve(listener, app).await });
            }
            Mode::Echo => {
                servers.spawn(echo(listener));
            }
        }
    }
    while let Some(ended) = servers.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root)",
        io::ErrorKind::AddrInUse => " (something else listens there)",
        io::ErrorKind::AddrNotAvailable => " (no interface has this address)",
        _ => "",
    }
}

fn router(host: Option<String>) -> Router {
    Router::new()
        .route("/bytes/{count}", get(bytes))
        .route("/hold", get(tick).put(answer_lines).post(answer_lines))
        .fallback(any(who))
        .with_state(host)
}

async fn who(
    ConnectInfo(peers): ConnectInfo<Peers>,
    State(host): State<Option<String>>,
    request: Request,
) -> Response {
    let wants_json = request
        .headers()
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/json"));
    if !wants_json {
        return peers.sentence().into_response();
    }
    let answer = Answer {
        you: peers.you.into(),
        me: peers.me.into(),
        host,
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
    };
    axum::Json(answer).into_response()
}

async fn bytes(Path(count): Path<String>) -> Response {
    match count.parse() {
        Ok(left) if left <= MAX_BYTES => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], Body::new(Zeros { left })).into_response()
        }
        _ => {
            let text = format!("/bytes/N takes a number of bytes up to {MAX_BYTES}, not {count}\n");
            (StatusCode::BAD_REQUEST, text).into_response()
        }
    }
}

/// A line each second for as long as the client stays.
async fn tick(ConnectInfo(peers): ConnectInfo<Peers>) -> Response {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        let mut clock = tokio::time::interval(Duration::from_secs(1));
        for second in 0_u64.. {
            clock.tick().await;
            if sender.send_data(format!("{second} s: {}", peers.sentence()).into()).await.is_err() {
                break;
            }
        }
    });
    Body::new(body).into_response()
}

/// One line back for each line of the request's body, while it is still coming in.
async fn answer_lines(ConnectInfo(peers): ConnectInfo<Peers>, request: Request) -> Response {
    let (sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(send_lines_back(peers, request.into_body(), sender));
    Body::new(body).into_response()
}

async fn send_lines_back(peers: Peers, mut body: Body, mut sender: Sender<Bytes>) {
    let mut line = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            line.extend_from_slice(piece);
            if line.len() > MAX_LINE {
                return;
            }
            if line.ends_with(b"\n") {
                let mut reply = format!("{}: ", peers.you).into_bytes();
                reply.append(&mut line);
                if sender.send_data(reply.into()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Longest line that `/hold` takes; a longer one ends the connection.
const MAX_LINE: usize = 64 * 1024;

async fn echo(mut front: Front) -> io::Result<()> {
    loop {
        let (mut stream, _) = front.accept().await;
        tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            // The other side went away: nothing left to do for this connection.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
    }
}

/// A listener whose connections know both of their ends.
struct Front(TcpListener);

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
struct Peers {
    you: SocketAddr,
    me: SocketAddr,
}

impl Peers {
    fn sentence(self) -> String {
        format!("you are {}\n", self.you)
    }
}

impl Listener for Front {
    type Io = TcpStream;
    type Addr = Peers;

    async fn accept(&mut self) -> (TcpStream, Peers) {
        loop {
            // axum's accept waits and tries again where the process is out of descriptors.
            let (stream, you) = Listener::accept(&mut self.0).await;
            // Fails only for a connection that was reset before it was accepted: wait for the next one.
            if let Ok(me) = stream.local_addr()
                && stream.set_nodelay(true).is_ok()
            {
                return (stream, Peers { you, me });
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peers> {
        let me = self.0.local_addr()?;
        Ok(Peers { you: me, me })
    }
}

impl Connected<IncomingStream<'_, Front>> for Peers {
    fn connect_info(stream: IncomingStream<'_, Front>) -> Self {
        *stream.remote_addr()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(at: SocketAddr) -> Self {
        Self { address: at.ip(), port: at.port() }
    }
}

/// A body of zeros of known length.
struct Zeros {
    left: u64,
}

static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

impl hyper::body::Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.left.min(ZEROS.len() as u64);
        self.left -= length;
        let frame = || Ok(Frame::data(Bytes::from_static(&ZEROS[..length as usize])));
        Poll::Ready((length > 0).then(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

    async fn serve(mode: Mode) -> SocketAddr {
        let (told, ready) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        let options =
            Options { bind: Ipv4Addr::LOCALHOST.into(), ports: vec![0], host: Some("example".into()), mode };
        tokio::spawn(run(options, move |address| {
            if let Some(told) = told.take() {
                let _ = told.send(address);
            }
        }));
        ready.await.expect("it listens")
    }

    async fn ask(address: SocketAddr, request: &str) -> (SocketAddr, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let me = stream.local_addr().unwrap();
        stream.write_all(format!("{request}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        (me, text)
    }

    #[tokio::test]
    async fn says_who_reached_it() {
        let address = serve(Mode::Http).await;
        let (me, text) = ask(address, "GET /some/path HTTP/1.1\r\nHost: x").await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.ends_with(&format!("\r\n\r\nyou are {me}\n")), "{text}");
    }

    #[tokio::test]
    async fn says_it_in_json_when_asked() {
        let address = serve(Mode::Http).await;
        let (me, text) =
            ask(address, "DELETE /a/b HTTP/1.1\r\nHost: x\r\nAccept: text/html, application/json").await;
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let expected = Answer {
            you: me.into(),
            me: address.into(),
            host: Some("example".into()),
            method: "DELETE".into(),
            path: "/a/b".into(),
        };
        assert_eq!(serde_json::from_str::<Answer>(body).unwrap(), expected);
    }

    #[tokio::test]
    async fn returns_exactly_as_many_bytes_as_asked_for() {
        let address = serve(Mode::Http).await;
        let (_, text) = ask(address, "GET /bytes/700001 HTTP/1.1\r\nHost: x").await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.to_lowercase().contains("content-length: 700001"), "{head}");
        assert_eq!(body.len(), 700_001);
        for wrong in ["99999999999999999999", "17179869185", "many"] {
            let (_, text) = ask(address, &format!("GET /bytes/{wrong} HTTP/1.1\r\nHost: x")).await;
            assert!(text.starts_with("HTTP/1.1 400"), "{text}");
        }
    }

    #[tokio::test]
    async fn hold_answers_each_line_while_the_request_goes_on() {
        let address = serve(Mode::Http).await;
        let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let me = stream.get_ref().local_addr().unwrap();
        stream
            .write_all(b"PUT /hold HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab\n\r\n")
            .await
            .unwrap();
        let mut lines = stream.lines();
        let expected = format!("{me}: ab");
        while lines.next_line().await.unwrap().expect("the answer comes before the request ends") != expected
        {
        }
    }

    #[tokio::test]
    async fn echo_sends_everything_back() {
        let address = serve(Mode::Echo).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"to and fro").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"to and fro");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let options =
            Options { bind: address.ip(), ports: vec![address.port()], host: None, mode: Mode::Http };
        let error = run(options, |_| ()).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("something else listens"), "{error}");
    }
}
