//! The TCP check: a connection is made and closed.

use std::time::Duration;

use super::CheckError;
use crate::backend::Server;

pub(super) async fn check(server: &Server, limit: Duration) -> Result<(), CheckError> {
    Ok(server.connect(limit).await.map(drop)?)
}
