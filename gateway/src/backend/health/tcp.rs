//! The TCP check: a connection is made and closed.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::CheckError;

pub(super) async fn check(address: SocketAddr) -> Result<(), CheckError> {
    TcpStream::connect(address).await.map(drop).map_err(CheckError::Connect)
}
