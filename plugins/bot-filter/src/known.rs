//! Programs that say what they are, by what they are for. Names as their makers document them; when one is missing, there is
//! `deny-agent`.

/// Groups, and what is in the `User-Agent` of their programs.
pub(crate) const GROUPS: [(&str, &[&str]); 4] = [
    // Collect text for models, or fetch it for them.
    (
        "ai",
        &[
            "AI2Bot",
            "Amazonbot",
            "anthropic-ai",
            "Applebot-Extended",
            "Bytespider",
            "CCBot",
            "ChatGPT-User",
            "Claude-Web",
            "ClaudeBot",
            "cohere-ai",
            "Diffbot",
            "FacebookBot",
            "Google-Extended",
            "GPTBot",
            "ImagesiftBot",
            "meta-externalagent",
            "OAI-SearchBot",
            "omgili",
            "PerplexityBot",
            "Timpibot",
            "YouBot",
        ],
    ),
    // Measure sites for those who sell their visibility.
    (
        "seo",
        &[
            "AhrefsBot",
            "BLEXBot",
            "DataForSeoBot",
            "dotbot",
            "MJ12bot",
            "PetalBot",
            "rogerbot",
            "SemrushBot",
            "SeznamBot",
            "serpstatbot",
        ],
    ),
    // Look for holes.
    (
        "scanner",
        &[
            "acunetix",
            "censysinspect",
            "dirbuster",
            "gobuster",
            "masscan",
            "nessus",
            "nikto",
            "nmap scripting engine",
            "nuclei",
            "sqlmap",
            "wpscan",
            "zgrab",
        ],
    ),
    // What a script says that does not say what it is.
    (
        "library",
        &[
            "aiohttp/",
            "axios/",
            "curl/",
            "go-http-client/",
            "java/",
            "libwww-perl/",
            "node-fetch/",
            "okhttp/",
            "python-requests/",
            "python-urllib/",
            "scrapy/",
            "wget/",
        ],
    ),
];
