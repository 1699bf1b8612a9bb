//! A listener that can be shut: connections are cut, new ones are refused, and the port is taken again afterwards.
//!
//! It exists so that an outage can be played in one process. A closed gate must look like a server that is
//! gone, not like one that hangs.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Pause after a failed accept or bind, so that a lasting error (no file descriptors left) does not spin.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The state that was asked for, and how often connections were cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    open: bool,
    cuts: u64,
}

/// Shuts and opens the listener that it belongs to.
#[derive(Clone)]
pub(super) struct Gate {
    address: SocketAddr,
    wanted: Arc<watch::Sender<Wanted>>,
    listening: watch::Receiver<bool>,
}

impl Gate {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection and stops listening; returns once that is so, or once the listener is gone altogether.
    pub(super) async fn close(&self) {
        self.wanted.send_modify(|wanted| *wanted = Wanted { open: false, cuts: wanted.cuts + 1 });
        let _ = self.listening.clone().wait_for(|listening| !listening).await;
    }

    /// Listens again on the same port; returns once that is so, or once the listener is gone altogether.
    pub(super) async fn open(&self) {
        self.wanted.send_modify(|wanted| wanted.open = true);
        let _ = self.listening.clone().wait_for(|listening| *listening).await;
    }

    /// Cuts every connection.
    pub(super) fn cut(&self) {
        self.wanted.send_modify(|wanted| wanted.cuts += 1);
    }
}

/// What axum accepts from.
pub(super) struct GatedListener {
    address: SocketAddr,
    inner: Option<TcpListener>,
    sender: Arc<watch::Sender<Wanted>>,
    wanted: watch::Receiver<Wanted>,
    listening: watch::Sender<bool>,
}

impl GatedListener {
    pub(super) async fn bind(address: SocketAddr) -> io::Result<GatedListener> {
        let inner = TcpListener::bind(address).await?;
        let address = inner.local_addr()?;
        let (sender, wanted) = watch::channel(Wanted { open: true, cuts: 0 });
        let listening = watch::Sender::new(true);
        Ok(GatedListener { address, inner: Some(inner), sender: Arc::new(sender), wanted, listening })
    }

    pub(super) fn gate(&self) -> Gate {
        Gate {
            address: self.address,
            wanted: Arc::clone(&self.sender),
            listening: self.listening.subscribe(),
        }
    }

    fn connection(&self, stream: TcpStream) -> GatedStream {
        // Answers are small and awaited; a failure to say so costs milliseconds only.
        let _ = stream.set_nodelay(true);
        let mut wanted = self.wanted.clone();
        let cuts = wanted.borrow().cuts;
        let cut = Box::pin(async move {
            let _ = wanted.wait_for(|wanted| wanted.cuts != cuts).await;
        });
        GatedStream { stream, cut: Some(cut) }
    }
}

impl Listener for GatedListener {
    type Io = GatedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (GatedStream, SocketAddr) {
        loop {
            let open = self.wanted.borrow_and_update().open;
            match (&self.inner, open) {
                (Some(inner), true) => tokio::select! {
                    biased;
                    _ = self.wanted.changed() => {}
                    accepted = inner.accept() => match accepted {
                        Ok((stream, peer)) => return (self.connection(stream), peer),
                        Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
                    },
                },
                (None, true) => match TcpListener::bind(self.address).await {
                    Ok(inner) => {
                        self.inner = Some(inner);
                        self.listening.send_replace(true);
                    }
                    Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
                },
                (_, false) => {
                    self.inner = None;
                    self.listening.send_replace(false);
                    let _ = self.wanted.changed().await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection that ends when the gate is shut.
pub(super) struct GatedStream {
    stream: TcpStream,
    /// Ready once the connection is cut, then gone.
    cut: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl GatedStream {
    /// Fails once the connection is cut, and sees to it that the task is woken when that happens.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(cut) = &mut self.cut
            && cut.as_mut().poll(context).is_pending()
        {
            return Ok(());
        }
        if self.cut.take().is_some() {
            // A reset, as from a machine that has gone; a failure leaves an ordinary close.
            let _ = self.stream.set_zero_linger();
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for GatedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for GatedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
