//! What policy may know of a TLS client whose connection passes through undecrypted. Apart: the fuzz targets take it without the rest.

/// What is read of a TLS client's first message, on its way to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name the client asks for, lower-case.
    pub sni: Option<String>,
    /// The application protocols the client offers, in its order.
    pub alpn: Vec<Vec<u8>>,
}
