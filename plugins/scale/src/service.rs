//! What is known of a service, and what follows from it.

use sentinel_plugin::Failure;
use sentinel_plugin::docker::Details;

/// Compose's labels.
pub(crate) const PROJECT: &str = "com.docker.compose.project";
pub(crate) const SERVICE: &str = "com.docker.compose.service";
pub(crate) const NUMBER: &str = "com.docker.compose.container-number";
/// `True` on a container that was made for one command, which is none of the service's.
pub(crate) const ONE_OFF: &str = "com.docker.compose.oneoff";

/// One container of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) name: String,
    /// Compose's number, from 1; 0 when it has none.
    pub(crate) number: u32,
    /// Whether it has a main process.
    pub(crate) is_up: bool,
    /// Whether nothing is seen to be wrong with it.
    pub(crate) works: bool,
}

impl Replica {
    pub(crate) fn of(details: &Details) -> Self {
        Self {
            name: details.name.clone(),
            number: details
                .label(NUMBER)
                .and_then(|number| number.parse().ok())
                .unwrap_or_default(),
            is_up: details.state.is_up(),
            works: details.works(),
        }
    }
}

/// How many containers there shall be, when there are `now`; or why there is nothing that
/// may be done.
pub(crate) fn goal(
    now: u32,
    change: Option<i32>,
    replicas: Option<u32>,
    min: u32,
    max: u32,
) -> Result<u32, String> {
    if min > max {
        return Err(format!("params `min` {min} is above `max` {max}"));
    }
    let Some(change) = change else {
        let wanted = replicas.ok_or("params need `change` or `replicas`")?;
        return Ok(wanted.clamp(min, max));
    };
    // A service that is out of its bounds already is not moved the other way.
    if change > 0 && now >= max {
        Err(format!("it runs {now} containers, and `max` is {max}"))
    } else if change < 0 && now <= min {
        Err(format!("it runs {now} containers, and `min` is {min}"))
    } else {
        Ok(now.saturating_add_signed(change).clamp(min, max))
    }
}

/// The name with this number in the place of the container's own, as Compose would give it.
pub(crate) fn next_name(like: &Replica, number: u32) -> Result<String, Failure> {
    let own = like.number.to_string();
    like.name
        .strip_suffix(&own)
        .filter(|stem| stem.ends_with(['-', '_']))
        .map(|stem| format!("{stem}{number}"))
        .ok_or_else(|| {
            Failure::permanent(format!(
                "{} does not end in its number, so its service has a fixed `container_name` and \
                 can have one container alone",
                like.name
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(name: &str, number: u32) -> Replica {
        Replica {
            name: name.to_owned(),
            number,
            is_up: true,
            works: true,
        }
    }

    #[test]
    fn the_bounds_hold_whatever_is_asked() {
        for (now, change, replicas, found) in [
            (2, Some(1), None, Ok(3)),
            (2, Some(9), None, Ok(4)),
            (2, Some(-9), None, Ok(1)),
            (
                4,
                Some(1),
                None,
                Err("it runs 4 containers, and `max` is 4"),
            ),
            (
                7,
                Some(1),
                None,
                Err("it runs 7 containers, and `max` is 4"),
            ),
            (7, Some(-1), None, Ok(4)),
            (
                1,
                Some(-1),
                None,
                Err("it runs 1 containers, and `min` is 1"),
            ),
            (2, None, Some(3), Ok(3)),
            (2, None, Some(99), Ok(4)),
            (2, None, Some(0), Ok(1)),
        ] {
            let goal = goal(now, change, replicas, 1, 4);
            assert_eq!(
                goal,
                found.map_err(str::to_owned),
                "{now} {change:?} {replicas:?}"
            );
        }
        assert!(goal(2, Some(1), None, 5, 4).is_err());
        assert!(goal(2, None, None, 1, 4).is_err());
    }

    #[test]
    fn names_go_on_as_compose_would_give_them() {
        let next = |name: &str, own, number| next_name(&replica(name, own), number);
        assert_eq!(next("shop-web-1", 1, 2), Ok("shop-web-2".to_owned()));
        assert_eq!(next("shop_web_9", 9, 10), Ok("shop_web_10".to_owned()));
        assert_eq!(next("shop-web2-12", 12, 13), Ok("shop-web2-13".to_owned()));
        for (name, own) in [("web", 1), ("web1", 1), ("shop-web-1", 2)] {
            next(name, own, 3).unwrap_err();
        }
    }
}
