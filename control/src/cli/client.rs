//! The daemon's HTTP API, as the verbs use it: one request per connection over the lab's Unix socket.

use std::os::fd::OwnedFd;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::PidfdFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::failure::Failure;
use super::{Global, lab};
use crate::host::RunDir;
use crate::view::{ApplyEvent, ErrorView, ResourceView};

/// A lab's daemon.
pub struct Client {
    /// Where the lab keeps its files.
    pub run_dir: RunDir,
    /// Runs on the calling thread only: `exec` must find a process with one thread.
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// The daemon of the lab that is meant.
    ///
    /// # Errors
    /// Where no lab, or more than one, could be meant.
    pub fn of(global: &Global) -> Result<Self, Failure> {
        Self::new(lab::pick(global)?)
    }

    /// The daemon of a lab that is known to run.
    ///
    /// # Errors
    /// Where the kernel refuses what the runtime needs.
    pub fn new(run_dir: RunDir) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Failure::System { action: "start the client", source })?;
        Ok(Self { run_dir, runtime })
    }

    /// The lab's name.
    pub fn lab(&self) -> &str {
        self.run_dir.lab()
    }

    /// A handle on the daemon's process, which becomes readable when it ends; none when it has ended.
    pub fn process(&self) -> Option<OwnedFd> {
        let daemon = std::os::unix::net::UnixStream::connect(self.run_dir.control_socket()).ok()?;
        let pid = rustix::net::sockopt::socket_peercred(&daemon).ok()?.pid;
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()
    }

    /// Whether the daemon was being killed when it was found: its socket still took connections, but nobody answers, and then
    /// its process ends.
    pub fn is_dying(&self) -> bool {
        let daemon = self.process();
        let silent =
            matches!(self.ask::<serde::de::IgnoredAny>("/v1/status"), Err(Failure::Conversation { .. }));
        silent && has_ended(daemon)
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`Failure::Daemon`] with what the daemon said, or how the conversation broke off.
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let response = self.request(Method::GET, path, Bytes::new()).await?;
            self.decode(&self.whole_body(response).await?)
        })
    }

    /// Nothing, where `name` is a resource of this kind; else the failure that names the nearest.
    ///
    /// # Errors
    /// [`Failure::NotFound`], or what the daemon said.
    pub fn require(&self, kind: &str, name: &str) -> Result<(), Failure> {
        let all: Vec<ResourceView> = self.ask("/v1/resources")?;
        let of_kind: Vec<_> = all.iter().filter(|resource| resource.kind == kind).collect();
        let is_it = |it: &&&ResourceView| it.name == name || format!("{}/{}", it.vpc, it.name) == name;
        if of_kind.iter().any(|it| is_it(&it)) {
            return Ok(());
        }
        let known = of_kind.iter().map(|resource| resource.name.clone()).collect();
        Err(Failure::NotFound {
            what: kind.to_owned(),
            name: name.to_owned(),
            lab: self.lab().to_owned(),
            known,
        })
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// [`Failure::Daemon`] with what the daemon said, or how the conversation broke off.
    pub fn tell<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let response = self.request(Method::POST, path, self.encode(body)?).await?;
            self.decode(&self.whole_body(response).await?)
        })
    }

    /// `POST path` where only success matters.
    ///
    /// # Errors
    /// [`Failure::Daemon`] with what the daemon said, or how the conversation broke off.
    pub fn order(&self, path: &str) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let response = self.request(Method::POST, path, Bytes::new()).await?;
            self.whole_body(response).await.map(drop)
        })
    }

    /// `POST path` with a JSON body, answered by a line per event.
    ///
    /// # Errors
    /// What the daemon said, how the conversation broke off, or what `each` returned.
    pub fn follow(
        &self,
        path: &str,
        body: &impl Serialize,
        mut each: impl FnMut(ApplyEvent) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let response = self.request(Method::POST, path, self.encode(body)?).await?;
            let mut body = response.into_body();
            let mut pending = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(|error| self.broke_off(&error))?.into_data() else { continue };
                for piece in data.split_inclusive(|&byte| byte == b'\n') {
                    pending.extend_from_slice(piece);
                    if pending.ends_with(b"\n") {
                        each(self.decode(&pending)?)?;
                        pending.clear();
                    }
                }
            }
            match pending.is_empty() {
                true => Ok(()),
                false => each(self.decode(&pending)?),
            }
        })
    }

    /// Sends a request; an answer other than success is a failure.
    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream =
            UnixStream::connect(self.run_dir.control_socket()).await.map_err(|error| match error.kind() {
                std::io::ErrorKind::PermissionDenied => Failure::NoAccess { lab: self.lab().to_owned() },
                _ => self.broke_off(&error),
            })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broke_off(&error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "localvpc")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broke_off(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broke_off(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.whole_body(response).await?;
        Err(match serde_json::from_slice::<ErrorView>(&body) {
            Ok(view) => Failure::Daemon(view),
            Err(_) => {
                let reason = format!("{status} for {path}: {}", String::from_utf8_lossy(&body).trim_end());
                Failure::Conversation { lab: self.lab().to_owned(), reason }
            }
        })
    }

    async fn whole_body(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        Ok(response.into_body().collect().await.map_err(|error| self.broke_off(&error))?.to_bytes())
    }

    fn encode(&self, body: &impl Serialize) -> Result<Bytes, Failure> {
        serde_json::to_vec(body).map(Bytes::from).map_err(|error| self.broke_off(&error))
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(body).map_err(|error| Failure::Conversation {
            lab: self.lab().to_owned(),
            reason: format!("{error} (is the daemon of another version? `localvpc down`, then `up`)"),
        })
    }

    /// Names the innermost cause: hyper's outermost says little.
    fn broke_off(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        let innermost = std::iter::successors(Some(error), |&error| error.source()).last();
        let reason = innermost.unwrap_or(error).to_string();
        Failure::Conversation { lab: self.lab().to_owned(), reason }
    }
}

/// Waits for the daemon's end: it replies before, and it is part of what is to be gone. Whether that was seen within 5 s;
/// everything else is gone already, so a daemon that is slow to end is no failure.
pub fn has_ended(daemon: Option<OwnedFd>) -> bool {
    let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
    daemon.is_none_or(|daemon| {
        matches!(poll(&mut [PollFd::new(&daemon, PollFlags::IN)], Some(&patience)), Ok(1..))
    })
}
