//! The native front door: a gRPC server for `Authorization/Check` and health, on hyper. It knows nothing of policies:
//! whoever decides is handed in.

mod batch;
mod body;
mod call;
mod connection;
mod frames;
mod grpc;
mod health;
pub mod limits;
mod serve;
mod tls;

pub use connection::Chain;
pub use grpc::Status;
pub use serve::{Address, Decided, Deciding, Front, Later};
pub use tls::config as tls_config;
