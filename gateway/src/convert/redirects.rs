//! Redirects: `redirect`, and `http-request redirect`.

use super::edits::captures;
use super::expressions::Shape;
use super::haproxy::Line;
use super::outline::Node;
use super::proxies::Proxy;
use super::variables::variables;
use super::words;

impl Proxy<'_> {
    pub(super) fn redirect(&mut self, line: &Line, words: &[String]) {
        let (said, _) = words::split_condition(words);
        match redirect(said) {
            Ok(node) => self.conditional(line, node, words),
            Err(reason) => self.leave_out(line, &reason),
        }
    }
}

fn redirect(words: &[String]) -> Result<Node, String> {
    let nowhere = || "a redirect to nowhere".to_owned();
    let is_target = |word: &String| matches!(word.as_str(), "location" | "prefix" | "scheme");
    // Where to mostly comes first, and may come behind `code 301`.
    let at = words.iter().position(is_target).ok_or_else(nowhere)?;
    let (kind, value) = (&words[at], words.get(at + 1).ok_or_else(nowhere)?);
    let asks = kind == "prefix" && value.contains('?');
    let node = Node::new("redirect");
    let mut node = match regsub(value).filter(|_| kind == "location") {
        Some(matched) => {
            let (regex, location) = matched?;
            node.prop("regex", regex).prop("location", location)
        }
        // HAProxy writes the path behind it as it is, here it is one parameter.
        None if asks => {
            let drops_query = words.iter().any(|word| word == "drop-query");
            let path = if drops_query { "%{path}" } else { "%{uri}" };
            node.prop("location", variables(value)? + path)
        }
        None => node.prop(kind, variables(value)?),
    };
    let mut options = words[..at].iter().chain(&words[at + 2..]).map(String::as_str);
    while let Some(option) = options.next() {
        let mut value = || options.next().ok_or_else(|| format!("`{option}` of what?"));
        node = match option {
            "code" => node.number_prop("code", value()?.parse().map_err(|_| "a code that is no number")?),
            "drop-query" if asks => node,
            "drop-query" => node.flag("drop-query"),
            "keep-query" => node.flag("keep-query"),
            "set-cookie" => node.prop("set-cookie", value()?),
            option => return Err(format!("there is no counterpart of `{option}` of a redirect")),
        };
    }
    Ok(node)
}

/// `%[path,regsub(^/old/,/new/)]` as a whole location: an expression for the path, and where it leads. HAProxy keeps what the expression
/// has not matched, and so does a capture for what follows.
fn regsub(value: &str) -> Option<Result<(String, String), String>> {
    let inner = value.strip_prefix("%[path,regsub(")?.strip_suffix(")]")?;
    Some(matched(inner))
}

fn matched(arguments: &str) -> Result<(String, String), String> {
    let (regex, rest) = argument(arguments)?;
    let (to, flags) = argument(rest)?;
    let case = match flags {
        "" => "",
        "i" => "(?i)",
        flags => return Err(format!("`regsub` with `{flags}` has no counterpart")),
    };
    if !Shape::of(regex).begins_anchored {
        return Err("a redirect's expression is about the path from its beginning".to_owned());
    }
    let location = captures(to).replace("%{", "%%{");
    if Shape::of(regex).ends_anchored {
        return Ok((format!("{case}{regex}"), location));
    }
    let compiled = regex::bytes::Regex::new(regex).map_err(|_| "an expression in another syntax than ours")?;
    let rest = compiled.captures_len();
    Ok((format!("{case}{regex}(.*)$"), format!("{location}${{{rest}}}")))
}

/// The first of several arguments, which may stand in quotes, and those behind its comma.
pub(super) fn argument(text: &str) -> Result<(&str, &str), String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let (argument, rest) = match quote {
        Some(quote) => text[1..].split_once(quote).ok_or("a quote that is not closed")?,
        None => text.split_at(text.find(',').unwrap_or(text.len())),
    };
    Ok((argument, rest.strip_prefix(',').unwrap_or(rest)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_substitution_in_the_path_is_an_expression_for_all_of_it() {
        for (theirs, regex, location) in [
            ("%[path,regsub(^/old/,/new/)]", "^/old/(.*)$", "/new/${1}"),
            (
                r#"%[path,regsub("^/(a|b)/x","/\1$",i)]"#,
                "(?i)^/(a|b)/x(.*)$",
                "/${1}$$${2}",
            ),
            (
                r"%[path,regsub('^/old/(.*)$','https://a.example/\1')]",
                "^/old/(.*)$",
                "https://a.example/${1}",
            ),
        ] {
            let (got, leads) = regsub(theirs).unwrap().unwrap();
            assert_eq!((&*got, &*leads), (regex, location), "{theirs}");
        }
        for without in [
            "%[path,regsub(/old/,/new/)]",
            "%[path,regsub(^/a|/b,/new/)]",
            "%[path,regsub(^/a/,/b/,g)]",
            "%[path,regsub(^/a(?!b),/b/)]",
        ] {
            regsub(without).unwrap().unwrap_err();
        }
        assert_eq!(regsub("%[path]"), None);
    }
}
