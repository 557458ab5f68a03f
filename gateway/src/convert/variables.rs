//! Log-format expressions in values: `%[req.hdr(host)]` becomes `%{header:host}`.

use super::maps;

/// The text with our variables. Fails with the reason where there is none.
pub(super) fn variables(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        rest = if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            // What follows is text, even if it looks like a variable of ours.
            if after.starts_with('{') {
                out.push('%');
            }
            after
        } else if let Some(inner) = after.strip_prefix('[') {
            let (fetch, after) = inner.split_once(']').ok_or("a `%[` that is not closed")?;
            out.push_str(&variable(fetch)?);
            after
        } else if let Some(quoted) = after.strip_prefix("{+Q}[") {
            let (fetch, after) = quoted.split_once(']').ok_or("a `%{+Q}[` that is not closed")?;
            out.push_str(&format!("\"{}\"", variable(fetch)?));
            after
        } else {
            let alias: String = after.chars().take_while(char::is_ascii_alphanumeric).collect();
            let (_, ours) = ALIASES
                .iter()
                .find(|(known, _)| *known == alias)
                .ok_or_else(|| format!("no variable for `%{alias}`"))?;
            out.push_str(ours);
            &after[alias.len()..]
        };
    }
    out.push_str(rest);
    Ok(out)
}

/// The variable that a fetch is.
pub(super) fn variable(fetch: &str) -> Result<String, String> {
    if let Some(fetch) = fetch
        .strip_suffix(",url_enc")
        .or_else(|| fetch.strip_suffix(",url_enc()"))
    {
        let ours = variable(fetch)?;
        // A name of the file, or a word, has nothing to encode.
        return Ok(match ours.strip_suffix('}') {
            Some(inner) if !matches!(&*ours, "%{frontend}" | "%{backend}") => format!("{inner}|url-encode}}"),
            _ => ours,
        });
    }
    if let Some(mapped) = maps::variable(fetch) {
        return mapped;
    }
    if let Some((_, why)) = OTHER_FORMS.iter().find(|(known, _)| known.eq_ignore_ascii_case(fetch)) {
        return Err(format!("`%[{fetch}]` has another form here: {why}"));
    }
    if is_host_alone(fetch) {
        return Ok("%{host}".to_owned());
    }
    let none = || format!("no variable for `%[{fetch}]`");
    let (name, argument) = match fetch.split_once('(') {
        Some((name, argument)) => (name, Some(argument.strip_suffix(')').ok_or_else(none)?)),
        None => (fetch, None),
    };
    if let Some((_, ours)) = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(fetch)) {
        return Ok((*ours).to_owned());
    }
    if let ("str", Some(text)) = (name, argument)
        && !text.contains(['(', ')', ',', '%'])
    {
        return Ok(text.to_owned());
    }
    let is_simple = argument.is_none_or(|argument| !argument.contains([',', '(', ')']));
    if !is_simple || name.contains(',') {
        return Err(none());
    }
    let name = name.strip_prefix("req.").unwrap_or(name);
    Ok(match (name, argument) {
        ("hdr" | "fhdr", Some(header)) if header.eq_ignore_ascii_case("host") => "%{authority}".to_owned(),
        ("hdr" | "fhdr", Some(header)) => format!("%{{header:{}}}", header.to_ascii_lowercase()),
        ("res.hdr" | "res.fhdr", Some(header)) => format!("%{{response-header:{}}}", header.to_ascii_lowercase()),
        ("cook", Some(cookie)) => format!("%{{cookie:{cookie}}}"),
        ("url_param" | "urlp", Some(parameter)) => format!("%{{query-param:{parameter}}}"),
        (name, None) => {
            let found = FETCHES.iter().find(|(known, _)| *known == name);
            found.map(|(_, ours)| (*ours).to_owned()).ok_or_else(none)?
        }
        _ => return Err(none()),
    })
}

/// Whether a fetch is the host in lower case and without its port: `req.hdr(host),lower,field(1,:)`.
fn is_host_alone(fetch: &str) -> bool {
    let parts = maps::split(fetch);
    let Some((sample, converters)) = parts.split_first() else {
        return false;
    };
    let is_of_port = |converter: &&str| matches!(*converter, "field(1,:)" | "word(1,:)" | "host_only");
    maps::is_host(sample)
        && converters.contains(&"lower")
        && converters.iter().any(is_of_port)
        && converters
            .iter()
            .all(|converter| *converter == "lower" || is_of_port(converter))
}

/// Fetches with something behind their first word that is said as a whole here. Names of certificates are written with slashes in
/// HAProxy, unless it is told otherwise.
const NAMES: &[(&str, &str)] = &[
    ("ssl_c_s_dn(cn)", "%{client-cert-cn}"),
    ("ssl_c_s_dn(,0,rfc2253)", "%{client-cert-subject}"),
    ("ssl_c_i_dn(,0,rfc2253)", "%{client-cert-issuer}"),
    ("ssl_c_der,base64", "%{client-cert-der}"),
    ("ssl_fc,iif(https,http)", "%{scheme}"),
    // What is not believed gets no connection, and so never a request.
    ("ssl_c_verify", "0"),
];

/// Fetches about it whose values look different here: servers that read them have to be told.
const OTHER_FORMS: &[(&str, &str)] = &[
    (
        "ssl_c_serial",
        "`%{client-cert-serial}` has hexadecimal digits in lower case",
    ),
    ("ssl_c_serial,hex", "`%{client-cert-serial}` has lower-case digits"),
    (
        "ssl_c_sha1",
        "`%{client-cert-fingerprint}` is SHA-256, in lower-case digits",
    ),
    (
        "ssl_c_sha1,hex",
        "`%{client-cert-fingerprint}` is SHA-256, in lower-case digits",
    ),
    (
        "ssl_c_der,sha2(256),hex",
        "`%{client-cert-fingerprint}` has lower-case digits",
    ),
    (
        "ssl_c_notbefore",
        "`%{client-cert-not-before}` is written as 2026-01-01T12:00:00Z",
    ),
    (
        "ssl_c_notafter",
        "`%{client-cert-not-after}` is written as 2026-01-01T12:00:00Z",
    ),
    (
        "ssl_c_s_dn",
        "`%{client-cert-subject}` is written as RFC 4514 has it; `ssl_c_s_dn(,0,rfc2253)` is the same",
    ),
    (
        "ssl_c_i_dn",
        "`%{client-cert-issuer}` is written as RFC 4514 has it; `ssl_c_i_dn(,0,rfc2253)` is the same",
    ),
];

/// Fetches without arguments.
const FETCHES: &[(&str, &str)] = &[
    ("src", "%{client-ip}"),
    ("src_port", "%{client-port}"),
    ("dst", "%{destination-ip}"),
    ("dst_port", "%{destination-port}"),
    ("method", "%{method}"),
    ("path", "%{path}"),
    ("query", "%{query}"),
    ("pathq", "%{uri}"),
    ("url", "%{uri}"),
    ("capture.uri", "%{uri}"),
    ("capture.req.uri", "%{uri}"),
    ("ver", "%{http-version}"),
    ("ssl_fc_sni", "%{sni}"),
    ("ssl_sni", "%{sni}"),
    ("req_ssl_sni", "%{sni}"),
    ("ssl_fc_alpn", "%{alpn}"),
    ("ssl_fc_protocol", "%{tls-version}"),
    ("ssl_fc_cipher", "%{tls-cipher}"),
    ("unique-id", "%{request-id}"),
    ("fe_name", "%{frontend}"),
    ("be_name", "%{backend}"),
    ("srv_name", "%{server}"),
    ("status", "%{status}"),
];

/// Short names of log formats.
const ALIASES: &[(&str, &str)] = &[
    ("ci", "%{client-ip}"),
    ("cp", "%{client-port}"),
    ("fi", "%{destination-ip}"),
    ("fp", "%{destination-port}"),
    ("f", "%{frontend}"),
    ("b", "%{backend}"),
    ("s", "%{server}"),
    ("HM", "%{method}"),
    ("HP", "%{path}"),
    ("HU", "%{uri}"),
    ("ID", "%{request-id}"),
    ("sslc", "%{tls-cipher}"),
    ("sslv", "%{tls-version}"),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::variables;

    #[test]
    fn expressions_become_variables() {
        for (haproxys, ours) in [
            ("https://%[hdr(host)]%[capture.req.uri]", "https://%{authority}%{uri}"),
            (
                "%[req.hdr(X-A)]-%[src]:%cp",
                "%{header:x-a}-%{client-ip}:%{client-port}",
            ),
            (
                "%[ssl_c_s_dn(CN)];%[ssl_c_i_dn(,0,rfc2253)]",
                "%{client-cert-cn};%{client-cert-issuer}",
            ),
            ("%[ssl_c_der,base64] %[ssl_c_verify]", "%{client-cert-der} 0"),
            (
                "%{+Q}[ssl_c_s_dn(cn)], %{+Q}[src]",
                r#""%{client-cert-cn}", "%{client-ip}""#,
            ),
            (
                "/login?from=%[url,url_enc]&a=%[hdr(X-A),url_enc]&f=%[fe_name,url_enc]",
                "/login?from=%{uri|url-encode}&a=%{header:x-a|url-encode}&f=%{frontend}",
            ),
            ("100%% %%{x}", "100% %%{x}"),
            ("%[req.hdr(Host),lower,word(1,:)].internal", "%{host}.internal"),
            ("%[str(a b)] %[ssl_fc,iif(https,http)]", "a b %{scheme}"),
            ("plain", "plain"),
        ] {
            assert_eq!(variables(haproxys).unwrap(), ours, "{haproxys}");
        }
        for wrong in [
            "%[hdr(host),lower]",
            "%[rand]",
            "%Tq",
            "%[src",
            "%{+Q}[src",
            "%{+X}[src]",
            "%[hdr(a,1)]",
            "%[ssl_c_s_dn]",
        ] {
            variables(wrong).unwrap_err();
        }
        let why = variables("%[ssl_c_notafter]").unwrap_err();
        assert!(why.contains("`%{client-cert-not-after}`"), "{why}");
    }
}
