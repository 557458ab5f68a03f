//! Why bytes are no header.

/// Why bytes are no header. Whoever sent them is at fault, and more bytes will not mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// They begin with neither version's signature.
    #[error("no PROXY header")]
    NoHeader,
    /// Version 1: the protocol is none of `TCP4`, `TCP6`, `UNKNOWN`.
    #[error("the protocol is not TCP4, TCP6 or UNKNOWN")]
    Protocol,
    /// Version 1: no line end where the longest line ends.
    #[error("the line has no end within {} bytes", super::MAX_LINE)]
    EndlessLine,
    /// Version 1: CR without LF, or LF without CR.
    #[error("the line does not end in CR LF")]
    LineEnd,
    /// Version 1: not two addresses and two ports with one space between them.
    #[error("the line has not exactly two addresses and two ports")]
    Fields,
    /// Version 1: an address that is none of the line's protocol.
    #[error("an address is not of the protocol")]
    Address,
    /// Version 1: a port that is none, or has leading zeros.
    #[error("a port is not a number from 0 to 65535")]
    Port,
    /// Version 2: another version in the 13th byte.
    #[error("version {0} is not known")]
    Version(u8),
    /// Version 2: neither LOCAL nor PROXY.
    #[error("command {0} is not known")]
    Command(u8),
    /// Version 2: an address family or transport protocol that is not assigned.
    #[error("family and protocol {0:#04x} are not known")]
    Family(u8),
    /// Version 2: longer than what is read.
    #[error("longer than {} bytes", super::MAX_LENGTH)]
    TooLong,
    /// Version 2: too short for the addresses of its family.
    #[error("too short for its addresses")]
    ShortAddresses,
    /// Version 2: a TLV runs over the end.
    #[error("a TLV is cut off")]
    CutTlv,
    /// Version 2: more TLVs than are kept.
    #[error("more than {} TLVs", super::MAX_TLVS)]
    TooManyTlvs,
    /// Version 2: twice what can only be there once.
    #[error("TLV {0:#04x} is there twice")]
    TwiceTlv(u8),
    /// Version 2: a value that its type does not allow.
    #[error("TLV {0:#04x} has no valid value")]
    TlvValue(u8),
    /// Version 2: the checksum is another one.
    #[error("wrong checksum")]
    Checksum,
}
