//! Bounds on HTTP/2.

/// What one connection of HTTP/2 may hold: `http2 max-streams=100 …`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    /// `max-streams=`: requests under way at once.
    pub max_streams: u32,
    /// `stream-window=`: bytes of one message's content that its sender may be ahead of its reader.
    pub stream_window: u32,
    /// `connection-window=`: the same over all messages of a connection.
    pub connection_window: u32,
    /// `max-frame-size=`: bytes of a frame's payload that the other side may send.
    pub max_frame_size: u32,
    /// `header-table=`: bytes of header fields that are remembered for the other side (HPACK, RFC 7541).
    pub header_table: u32,
}

impl Http2 {
    /// With clients. A hundred streams is what RFC 9113, section 6.5.2, asks for at least, and what HAProxy takes. The windows
    /// bound what a client can make the gateway hold: 1 MiB a connection, whatever its streams do. Frames and table are the
    /// protocol's own initial values.
    pub const CLIENTS: Self = Self {
        max_streams: 100,
        stream_window: 64 << 10,
        connection_window: 1 << 20,
        max_frame_size: 16 << 10,
        header_table: 4 << 10,
    };

    /// With servers, which are fewer and trusted further: windows that keep a fast network busy, and that of the connection has room for
    /// all streams. Many clients share it; were it less, those who do not read could hold up all others.
    pub const SERVERS: Self = Self {
        stream_window: 256 << 10,
        connection_window: 100 * (256 << 10),
        ..Self::CLIENTS
    };

    /// How many streams have room in the connection's window whatever their readers do; one at least, and no more than `max_streams`.
    pub fn roomy_streams(&self) -> u32 {
        (self.connection_window / self.stream_window).clamp(1, self.max_streams)
    }
}

/// HTTP/2 with clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHttp2 {
    /// What one connection may hold.
    pub bounds: Http2,
    /// `max-resets=`: streams that a client may reset in ten seconds.
    pub max_resets: u32,
    /// `max-control-frames=`: frames that carry nothing of a request, in ten seconds.
    pub max_control_frames: u32,
    /// Whether it is spoken at all; `http2 "off"` says no. On binds without TLS, a client that begins with HTTP/2 gets it.
    pub enabled: bool,
}
