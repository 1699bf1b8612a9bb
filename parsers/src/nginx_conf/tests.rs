//! Configurations through the front door.

use super::*;
use crate::{Format, Parser};
use proptest::prelude::*;
use std::string::ToString;

const PLACE: Place<'static> = Place {
    main_file: "/etc/nginx/nginx.conf",
    prefix: "/usr/share/nginx",
    default_access_log: "logs/access.log",
};

fn found(text: &str) -> Discovery {
    access_logs(text, &PLACE, &mut |_| Vec::new())
}

/// Each log as `path format names`.
fn shown(discovery: &Discovery) -> Vec<String> {
    let show = |log: &AccessLogDirective| {
        std::format!("{} {} {}", log.path, log.format_name, log.server_names.join(","))
    };
    discovery.logs.iter().map(show).collect()
}

#[test]
fn a_level_that_states_logs_replaces_the_outer_ones() {
    let discovery = found(
        "user www-data; # comment { \n
        http {
            access_log /var/log/all.log;
            server { server_name a.example b.example; }
            server { server_name c.example; access_log /var/log/c.log; access_log /var/log/c2.log;
                location /quiet { access_log off; }
                location /api { access_log logs/api.log; location ~ \"^/api/{1}\" { if ($x) { access_log off; } } }
            }
            server { listen 80; access_log off; }
            server { server_name \"\" d.example; }
        }
        stream { server { access_log /var/log/stream.log basic; } }",
    );
    assert_eq!(
        shown(&discovery),
        [
            "/var/log/all.log combined a.example,b.example,d.example",
            "/var/log/c.log combined c.example",
            "/var/log/c2.log combined c.example",
            "/usr/share/nginx/logs/api.log combined c.example",
        ]
    );
    assert_eq!((discovery.off_servers, discovery.off_locations), (1, 2));
    assert_eq!(discovery.problems, []);
}

#[test]
fn what_is_not_stated_is_the_default() {
    assert_eq!(
        shown(&found("http { server { } server { access_log off; } }")),
        ["/usr/share/nginx/logs/access.log combined "]
    );
    assert_eq!(shown(&found("http { }")).len(), 1);
    assert_eq!(shown(&found("http { access_log off; }")), [""; 0]);
    // A log that every server replaces gets no line.
    assert_eq!(shown(&found("http { server { access_log /a; } }")), ["/a combined "]);
    assert_eq!(shown(&found("events { }")), [""; 0]);
}

#[test]
fn formats_reach_the_parser_as_they_were_meant() {
    let discovery = found(
        r#"http {
            log_format main escape=json '$remote_addr\t'
                "\"$request\" ${status}" ' it\'s \\';
            access_log /a.log main buffer=32k flush=1m if=$loggable;
            access_log /b.log main gzip;
            access_log syslog:server=unix:/dev/log main;
            access_log /dev/stdout;
            access_log /var/log/$host.log;
        }"#,
    );
    let log = &discovery.logs[0];
    assert_eq!(
        (log.buffer_bytes, log.flush_ms, log.gzip, log.conditional),
        (Some(32_768), Some(60_000), false, true)
    );
    let log = &discovery.logs[1];
    assert_eq!(
        (log.buffer_bytes, log.flush_ms, log.gzip, log.conditional),
        (Some(65_536), None, true, false)
    );
    let targets: Vec<LogTarget> = discovery.logs.iter().map(|log| log.target).collect();
    assert_eq!(
        targets[1..],
        [LogTarget::File, LogTarget::Syslog, LogTarget::Device, LogTarget::FilesByVariable]
    );

    let text = log.format.as_deref().expect("main is defined");
    let mut parser = Parser::new(Format::from_log_format(text).expect("is a format"));
    let line = parser.parse(b"::1\t\"GET /\\\" HTTP/1.1\" 200 it's \\").expect("is a line");
    assert_eq!(
        (line.remote_addr, line.target, line.status),
        (Some(&b"::1"[..]), Some(&b"/\""[..]), Some(200))
    );
    assert_eq!(discovery.logs[3].format, None);
}

#[test]
fn includes_are_put_in_their_place() {
    let mut asked = Vec::new();
    let text = "http { include conf.d/*.conf; include /missing; access_log /outer.log m; }";
    let discovery = access_logs(text, &PLACE, &mut |pattern| {
        asked.push(pattern.to_string());
        match pattern {
            "/etc/nginx/conf.d/*.conf" => Vec::from([
                (
                    "/etc/nginx/conf.d/a.conf".into(),
                    "log_format m '$status';\nserver { server_name a; include snippet; }".into(),
                ),
                (
                    "/etc/nginx/conf.d/b.conf".into(),
                    "server { server_name b;\naccess_log /b.log nowhere; }".into(),
                ),
            ]),
            "/etc/nginx/snippet" => Vec::from([("/etc/nginx/snippet".into(), "access_log /a.log m;".into())]),
            _ => Vec::new(),
        }
    });
    assert_eq!(asked, ["/etc/nginx/conf.d/*.conf", "/etc/nginx/snippet", "/missing"]);
    assert_eq!(shown(&discovery), ["/a.log m a", "/b.log nowhere b"]);
    assert_eq!(discovery.logs[0].format.as_deref(), Some("'$status'"));
    let problems: Vec<(&str, u32)> =
        discovery.problems.iter().map(|problem| (problem.file.as_str(), problem.line)).collect();
    assert_eq!(problems, [("/etc/nginx/nginx.conf", 1), ("/etc/nginx/conf.d/b.conf", 2)]);
}

#[test]
fn an_include_of_itself_and_endless_blocks_end() {
    let discovery = access_logs("include nginx.conf; http { }", &PLACE, &mut |_| {
        Vec::from([("again".into(), "include nginx.conf;".into())])
    });
    assert!(discovery.problems[0].message.contains("deep"), "{:?}", discovery.problems);
    let discovery = found(&std::format!("http {{ access_log /a; }} {}", "a { ".repeat(100_000)));
    assert_eq!(shown(&discovery), ["/a combined "]);
    assert!(discovery.problems.iter().any(|problem| problem.message.contains("deep")));
}

#[test]
fn what_is_wrong_is_named_and_the_rest_is_read() {
    let discovery = found("}\nhttp { access_log /a;\n server_tokens off }\n'open\n");
    assert_eq!(shown(&discovery), ["/a combined "]);
    let problems: Vec<(u32, &str)> =
        discovery.problems.iter().map(|problem| (problem.line, problem.message.as_str())).collect();
    assert_eq!(
        problems,
        [
            (1, "a `}` without its `{`"),
            (3, "`server_tokens` is not ended by `;`"),
            (4, "quotes that do not close as they should"),
        ]
    );
}

#[test]
fn lua_in_a_block_is_not_nginx() {
    let discovery = found(
        "http { init_by_lua_block { local s = \"}\" -- it's }\n } server { location / { content_by_lua_block { ngx.say('{') } access_log /l; } } }",
    );
    assert_eq!(shown(&discovery), ["/usr/share/nginx/logs/access.log combined ", "/l combined "]);
    assert_eq!(discovery.problems, []);
}

#[test]
fn error_logs_are_found_on_every_level() {
    let discovery = found(
        "error_log /e.log warn; http { error_log stderr; server { error_log /e.log; error_log logs/s.log crit; } }",
    );
    let shown: Vec<String> =
        discovery.error_logs.iter().map(|log| std::format!("{} {}", log.path, log.level)).collect();
    assert_eq!(shown, ["/e.log warn", "stderr error", "/usr/share/nginx/logs/s.log crit"]);
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(http|server|access_log|log_format|include|[ab'\"{};\\\\$# \n]){0,60}") {
        access_logs(&text, &PLACE, &mut |pattern| Vec::from([("x".into(), pattern.into())]));
    }
}
