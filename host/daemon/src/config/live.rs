//! What of another configuration can hold while the daemon runs, and what waits for its next
//! start.

use std::collections::BTreeMap;
use std::fmt;

use sentinel_core::control::Setting;
use sentinel_core::duration::HumanDuration;
use sentinel_core::id::Digest;
use sentinel_drivers::docker::DockerHost;
use sentinel_sandbox::Room;

use super::{
    AlertmanagerConfig, AnsibleConfig, Config, GuardLimits, IntakeLimits, Limits, LogConfig,
    MailConfig, PluginLimits, PluginsConfig, ProbationConfig, RunBounds, SecretSource,
};

/// What was set aside at the start and cannot grow: places of instances, and their memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pool {
    runs: u32,
    room: Room,
}

impl Pool {
    /// What a daemon that starts with this configuration sets aside.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            runs: config.limits.plugin.runs,
            room: config.limits.room(),
        }
    }
}

impl Config {
    /// What holds from now on where the file says `file`: what can change in a daemon that
    /// runs is as the file has it, the rest as it was.
    pub(crate) fn take_over(&self, file: Self, pool: Pool) -> Self {
        Self {
            plugins: PluginsConfig {
                // Which version may serve was decided with these; they are no matter of a moment.
                signatures: self.plugins.signatures,
                keys: self.plugins.keys.clone(),
                ..file.plugins
            },
            limits: self.limits.take_over(file.limits, pool),
            maintenance: file.maintenance,
            resolve_timeout: file.resolve_timeout,
            retention: file.retention,
            log: LogConfig {
                level: file.log.level,
                format: self.log.format,
            },
            grace: file.grace,
            ..self.clone()
        }
    }

    /// Every key with its value, written as a person reads it; without what is not set.
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        // Whoever adds a field is reminded to add it here.
        let Self {
            listen,
            access,
            allowed_hosts,
            data_dir,
            plugins_dir,
            policies_dir,
            docker_hosts,
            ansible,
            secrets,
            mail,
            plugins,
            limits,
            maintenance,
            alertmanager,
            resolve_timeout,
            retention,
            log,
            grace,
        } = self;
        let mut settings = Settings::default();
        settings.put("listen", listen);
        if let Some(access) = access {
            settings.put("access", access);
        }
        settings.list("allowed_hosts", allowed_hosts);
        settings.put("data_dir", &data_dir.display());
        settings.put("plugins_dir", &plugins_dir.display());
        settings.put("policies_dir", &policies_dir.display());
        for (name, host) in docker_hosts {
            docker_host(&format!("docker.hosts.{name}"), host, &mut settings);
        }
        ansible.put(&mut settings);
        for (name, source) in secrets {
            let place = match source {
                SecretSource::File(path) => format!("file {}", path.display()),
                SecretSource::Env(variable) => format!("variable {variable}"),
            };
            settings.put(&format!("http.secrets.{name}"), &place);
        }
        for (name, value) in mail.iter().flat_map(MailConfig::settings) {
            settings.put(&format!("mail.{name}"), &value);
        }
        plugins.put(&mut settings);
        limits.put(&mut settings);
        settings.list("maintenance", maintenance);
        for (name, value) in alertmanager.iter().flat_map(AlertmanagerConfig::settings) {
            settings.put(&format!("alertmanager.{name}"), &value);
        }
        settings.put("resolve_timeout", &HumanDuration(*resolve_timeout));
        settings.put("retention.alerts", &HumanDuration(*retention));
        let LogConfig { level, format } = log;
        settings.put("log.level", level);
        settings.put("log.format", &format!("{format:?}").to_lowercase());
        settings.put("shutdown_grace", &HumanDuration(*grace));
        settings.0
    }
}

impl Limits {
    fn take_over(&self, file: Self, pool: Pool) -> Self {
        let plugin = &self.plugin;
        let count = |file: u32, before: u32, most: u32| if file <= most { file } else { before };
        let bounds = |file: RunBounds, before: &RunBounds| RunBounds {
            memory: if file.memory.size() <= pool.room.memory {
                file.memory
            } else {
                before.memory
            },
            instances: count(file.instances, before.instances, pool.room.instances),
            tables: count(file.tables, before.tables, pool.room.tables),
            table_entries: count(
                file.table_entries,
                before.table_entries,
                pool.room.table_entries,
            ),
            ..file
        };
        let (runs, runs_per_plugin) = if file.plugin.runs <= pool.runs {
            (file.plugin.runs, file.plugin.runs_per_plugin)
        } else {
            (plugin.runs, plugin.runs_per_plugin)
        };
        let own = file.plugins.into_iter().map(|(name, file)| {
            let bounds = bounds(file, self.of(&name));
            (name, bounds)
        });
        let intake = &self.intake;
        Self {
            plugins: own.collect(),
            plugin: PluginLimits {
                run: bounds(file.plugin.run, &plugin.run),
                runs,
                runs_per_plugin,
                stack: plugin.stack,
            },
            intake: IntakeLimits {
                // All bodies together are counted from the start.
                memory: intake.memory,
                body: if file.intake.body <= intake.memory {
                    file.intake.body
                } else {
                    intake.body
                },
                ..file.intake
            },
            guards: file.guards,
            incidents: file.incidents,
            connections: self.connections,
        }
    }

    fn put(&self, settings: &mut Settings) {
        let Self {
            intake,
            plugin,
            plugins,
            guards,
            incidents,
            connections,
        } = self;
        let IntakeLimits {
            body,
            body_timeout,
            memory,
            backlog,
        } = intake;
        settings.put("limits.intake.body", body);
        settings.put("limits.intake.body_timeout", &HumanDuration(*body_timeout));
        settings.put("limits.intake.memory", memory);
        settings.put("limits.intake.backlog", backlog);
        let PluginLimits {
            run,
            runs,
            runs_per_plugin,
            stack,
        } = plugin;
        run.put("limits.plugin", settings);
        settings.put("limits.plugin.runs", runs);
        settings.put("limits.plugin.runs_per_plugin", runs_per_plugin);
        settings.put("limits.plugin.stack", stack);
        for (name, bounds) in plugins {
            bounds.put(&format!("limits.plugins.{name}"), settings);
        }
        let GuardLimits {
            target_rate,
            total_rate,
            telling_rate,
            actions,
        } = guards;
        settings.put("limits.guards.target_rate", target_rate);
        settings.put("limits.guards.total_rate", total_rate);
        settings.put("limits.guards.telling_rate", telling_rate);
        for (name, window) in actions {
            settings.put(&format!("limits.guards.actions.{name}"), window);
        }
        settings.put("limits.incidents", incidents);
        settings.put("limits.connections", connections);
    }
}

impl RunBounds {
    fn put(&self, key: &str, settings: &mut Settings) {
        let Self {
            memory,
            instances,
            tables,
            table_entries,
            cpu,
            resources,
            calls,
            calls_per_second,
            call_size,
            params,
            effects,
            log,
            log_lines,
            http,
            record,
        } = self;
        settings.put(&format!("{key}.memory"), memory);
        settings.put(&format!("{key}.instances"), instances);
        settings.put(&format!("{key}.tables"), tables);
        settings.put(&format!("{key}.table_entries"), table_entries);
        settings.put(&format!("{key}.cpu"), &HumanDuration(*cpu));
        settings.put(&format!("{key}.resources"), resources);
        settings.put(&format!("{key}.calls"), calls);
        settings.put(&format!("{key}.calls_per_second"), calls_per_second);
        settings.put(&format!("{key}.call_size"), call_size);
        settings.put(&format!("{key}.params"), params);
        settings.put(&format!("{key}.effects"), effects);
        settings.put(&format!("{key}.log"), log);
        settings.put(&format!("{key}.log_lines"), log_lines);
        settings.put(&format!("{key}.http"), http);
        settings.put(&format!("{key}.record"), record);
    }
}

impl PluginsConfig {
    fn put(&self, settings: &mut Settings) {
        let Self {
            signatures,
            keys,
            replay,
            probation,
            drain,
        } = self;
        settings.put(
            "plugins.signatures",
            &format!("{signatures:?}").to_lowercase(),
        );
        // The library does not give the text of a key back.
        let key = |key| Digest::of(format!("{key:?}").as_bytes());
        let keys: Vec<_> = keys.iter().map(key).collect();
        settings.list("plugins.keys", &keys);
        settings.put("plugins.replay", replay);
        let ProbationConfig {
            runs,
            within,
            faults,
        } = probation;
        settings.put("plugins.probation.runs", runs);
        settings.put("plugins.probation.within", &HumanDuration(*within));
        settings.put("plugins.probation.faults", faults);
        settings.put("plugins.drain", &HumanDuration(*drain));
    }
}

impl AnsibleConfig {
    fn put(&self, settings: &mut Settings) {
        let Self {
            playbooks_dir,
            inventory,
            program,
        } = self;
        settings.put("ansible.playbooks_dir", &playbooks_dir.display());
        settings.list("ansible.inventory", inventory);
        settings.put("ansible.program", &program.display());
    }
}

fn docker_host(key: &str, host: &DockerHost, settings: &mut Settings) {
    let DockerHost {
        url,
        tls,
        ssh,
        insecure,
    } = host;
    settings.put(key, url);
    if let Some(tls) = tls {
        for (name, file) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
            settings.put(&format!("{key}.tls.{name}"), &file.display());
        }
    }
    if let Some(ssh) = ssh {
        let files = [
            ("identity", &ssh.identity),
            ("known_hosts", &ssh.known_hosts),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                settings.put(&format!("{key}.ssh.{name}"), &file.display());
            }
        }
    }
    if *insecure {
        settings.put(&format!("{key}.insecure"), insecure);
    }
}

/// Values by their keys.
#[derive(Debug, Default)]
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn put(&mut self, key: &str, value: &dyn fmt::Display) {
        self.0.insert(key.to_owned(), value.to_string());
    }

    /// Nothing, where the list is empty.
    fn list(&mut self, key: &str, values: &[impl ToString]) {
        if !values.is_empty() {
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            self.put(key, &values.join("; "));
        }
    }
}

/// What is different in `to`.
pub(crate) fn difference(
    from: &BTreeMap<String, String>,
    to: &BTreeMap<String, String>,
) -> BTreeMap<String, Setting> {
    from.keys()
        .chain(to.keys())
        .filter(|key| from.get(*key) != to.get(*key))
        .map(|key| {
            let setting = Setting {
                from: from.get(key).cloned(),
                to: to.get(key).cloned(),
            };
            (key.clone(), setting)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::read;

    fn keys(changed: &BTreeMap<String, Setting>) -> Vec<&str> {
        changed.keys().map(String::as_str).collect()
    }

    /// Which keys change at once, and which wait for the next start, when a file that said
    /// `before` says `after`.
    fn split(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
        let (running, file) = (read(before, &[]).unwrap(), read(after, &[]).unwrap());
        let next = running.take_over(file.clone(), Pool::of(&running));
        // The two files are in folders of their own.
        let own = |changed: BTreeMap<String, Setting>| {
            let keys = changed.into_keys();
            keys.filter(|key| !key.contains("_dir")).collect::<Vec<_>>()
        };
        (
            own(difference(&running.settings(), &next.settings())),
            own(difference(&next.settings(), &file.settings())),
        )
    }

    #[test]
    fn what_can_change_live_does_and_the_rest_waits() {
        let (live, waits) = split(
            "limits: { incidents: 5 }",
            "{ listen: '127.0.0.1:1', log: { level: debug, format: json }, shutdown_grace: 1s,
               resolve_timeout: 1m, retention: { alerts: 2d },
               maintenance: [{ from: '01:00', to: '02:00' }],
               docker: { hosts: { web: 'ssh://ops@web' } }, alertmanager: { url: 'http://am:9093' },
               mail: { server: a, from: s@example.com, hello: b },
               plugins: { replay: 3, drain: 1m, probation: { faults: 1 } },
               limits: { guards: { total_rate: 5/1h, actions: { docker.stop: 1/1h } },
                         intake: { backlog: 7 }, plugin: { cpu: 1s } } }",
        );
        assert_eq!(
            live,
            [
                "limits.guards.actions.docker.stop",
                "limits.guards.total_rate",
                "limits.incidents",
                "limits.intake.backlog",
                "limits.plugin.cpu",
                "log.level",
                "maintenance",
                "plugins.drain",
                "plugins.probation.faults",
                "plugins.replay",
                "resolve_timeout",
                "retention.alerts",
                "shutdown_grace",
            ]
        );
        assert_eq!(
            waits,
            [
                "alertmanager.every",
                "alertmanager.missed_after",
                "alertmanager.unmuted",
                "alertmanager.url",
                "docker.hosts.local",
                "docker.hosts.web",
                "listen",
                "log.format",
                "mail.from",
                "mail.hello",
                "mail.port",
                "mail.security",
                "mail.server",
            ]
        );
    }

    #[test]
    fn what_was_set_aside_at_the_start_does_not_grow() {
        let (live, waits) = split(
            "limits: { plugin: { memory: 64MiB, runs: 8, tables: 20 } }",
            "limits: { plugin: { memory: 32MiB, runs: 4, tables: 9 }, plugins: { small: { cpu: 1s } } }",
        );
        assert!(
            live.contains(&"limits.plugin.memory".to_owned()),
            "{live:?}"
        );
        assert!(live.contains(&"limits.plugins.small.cpu".to_owned()));
        assert!(live.contains(&"limits.plugin.tables".to_owned()));
        assert_eq!(waits, [""; 0]);
        let (live, waits) = split(
            "limits: { plugin: { memory: 32MiB, runs: 4 }, intake: { body: 1MiB, memory: 2MiB } }",
            "limits: { plugin: { memory: 64MiB, runs: 8, tables: 9, stack: 1MiB }, intake: { body: 3MiB, memory: 4MiB },
                       plugins: { large: { memory: 33MiB } } }",
        );
        assert!(
            live.iter()
                .all(|key| key.starts_with("limits.plugins.large."))
        );
        for key in [
            "limits.intake.body",
            "limits.intake.memory",
            "limits.plugin.memory",
            "limits.plugin.runs",
            "limits.plugin.stack",
            "limits.plugin.tables",
            "limits.plugins.large.memory",
        ] {
            assert!(waits.contains(&key.to_owned()), "{key} in {waits:?}");
        }
    }

    #[test]
    fn a_difference_says_what_was_and_what_is() {
        let text = |value: &str| Some(value.to_owned());
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let changed = difference(
            &map(&[("a", "1"), ("b", "1"), ("c", "1")]),
            &map(&[("b", "2"), ("c", "1"), ("d", "2")]),
        );
        assert_eq!(keys(&changed), ["a", "b", "d"]);
        let (gone, other, new) = (&changed["a"], &changed["b"], &changed["d"]);
        assert_eq!((&gone.from, &gone.to), (&text("1"), &None));
        assert_eq!((&other.from, &other.to), (&text("1"), &text("2")));
        assert_eq!((&new.from, &new.to), (&None, &text("2")));
    }
}
