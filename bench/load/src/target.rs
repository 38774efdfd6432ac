//! Where a server is: an address of TCP or the path of a Unix socket, and a connection to it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A server's address, written `127.0.0.1:9191` or `unix:///run/check.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP, with Nagle's algorithm off.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Both kinds of connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Target {
    /// A new connection.
    pub async fn connect(&self) -> Result<Box<dyn Io>, String> {
        let refused = |error: std::io::Error| format!("`{self}` can't be reached: {error}");
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(refused)?;
                stream.set_nodelay(true).map_err(refused)?;
                Ok(Box::new(stream))
            }
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(refused)?)),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(format!("`{text}` names no absolute path after `unix://`"))
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| format!("`{text}` is neither `ADDRESS:PORT` nor `unix:///path`"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(out, "{address}"),
            Self::Unix(path) => write!(out, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in ["127.0.0.1:9191", "[::1]:80", "unix:///run/check.sock"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_said_to_be_none() {
        for text in ["localhost:1", "unix://relative", "127.0.0.1", ""] {
            assert!(text.parse::<Target>().unwrap_err().contains(text), "{text}");
        }
    }
}
