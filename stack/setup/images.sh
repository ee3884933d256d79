#!/usr/bin/env bash
# Sees to it that every image of the stack is there, under its official name and version. What is missing is
# pulled; where no registry answers, it is built from Debian's packages, laid out like the official image, so
# that one compose file serves both.
# IMAGES=pull asks only the registry, IMAGES=local never asks it.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

nginx=nginx:1.26.3
exporter=nginx/nginx-prometheus-exporter:1.4.1
prometheus=prom/prometheus:v2.53.3
alertmanager=prom/alertmanager:v0.28.1
# The suite that carries these versions.
suite=trixie
# How long a registry may take to begin its answer, and to end it (seconds).
answer_within=15
pull_within=900

work="$(mktemp -d)"
puller=
trap '[[ -z "$puller" ]] || kill "$puller" 2>/dev/null || true; rm -rf "$work"' EXIT

# 0: pulled; 1: the registry answers and does not give it; 2: no registry.
pull() {
    local image="$1" start=$SECONDS n=0 status=0
    say "pulling $image"
    timeout "$pull_within" docker pull "$image" >"$work/pull" 2>&1 &
    puller=$!
    while kill -0 "$puller" 2>/dev/null; do
        sleep 0.2
        if ! grep -q 'Pulling from' "$work/pull" && ((SECONDS - start >= answer_within)); then
            kill "$puller" 2>/dev/null || true
            wait "$puller" || true
            puller=
            return 2
        fi
        if ((++n % 50 == 0)); then note "pulling $image: $((SECONDS - start)) s"; fi
    done
    wait "$puller" || status=$?
    puller=
    ((status)) || return 0
    if grep -qE 'Pulling from|not found|toomanyrequests|denied|unauthorized' "$work/pull"; then
        tail -n 3 "$work/pull" >&2
        return 1
    fi
    return 2
}

# Puts an image together from Debian packages, whole, and without a build: the fastest way, and the smallest
# images. Their dependencies are named by the caller: a daemon needs its libraries and no more.
# usage: assemble IMAGE "PACKAGE…" [docker import's --change …]
assemble() {
    local image="$1" tree="$work/tree" packages change=() deb version each
    read -ra packages <<<"$2"
    shift 2
    for each in "$@"; do change+=(--change "$each"); done
    say "assembling $image from Debian's packages"
    rm -rf "$tree" "$work/deb"
    mkdir -p "$tree/usr"/{bin,sbin,lib,lib64} "$tree"/{dev,proc,sys,etc,run,tmp,root,var/log} "$work/deb"
    for each in bin sbin lib lib64; do ln -s "usr/$each" "$tree/$each"; done
    debian_download "$suite" "$work/deb" "${packages[@]}" busybox-static libc6 ||
        die "Debian's packages for $image could not be fetched"
    for deb in "$work/deb"/*.deb; do
        # Through tar, and not `dpkg-deb -x`, so that the links of the merged /usr stay links.
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tree" --keep-directory-symlink --no-same-owner \
            --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' \
            --exclude='./usr/share/javascript' --exclude='./usr/share/lintian' --exclude='./usr/share/zsh' \
            --exclude='./usr/lib/*/gconv' --exclude='./usr/lib/systemd' --exclude='./etc/init.d'
    done
    # A shell and its company, as the official images have one.
    for each in $("$tree/usr/bin/busybox" --list); do
        [[ -e "$tree/usr/bin/$each" || -e "$tree/usr/sbin/$each" ]] || ln -s busybox "$tree/usr/bin/$each"
    done
    printf '%s\n' root:x:0:0:root:/root:/bin/sh nginx:x:101:101:nginx:/nonexistent:/bin/false \
        nobody:x:65534:65534:nobody:/:/bin/false >"$tree/etc/passwd"
    printf '%s\n' root:x:0: nginx:x:101: nogroup:x:65534: >"$tree/etc/group"
    printf 'hosts: files dns\n' >"$tree/etc/nsswitch.conf"
    chmod 1777 "$tree/tmp"

    # The tag is a promise: say so when the archive has gone on.
    deb="$(compgen -G "$work/deb/${packages[0]}_*.deb")"
    version="$(dpkg-deb -f "$deb" Version)"
    each="${image##*:}"
    [[ "$version" == "${each#v}"* ]] || note "Debian has ${packages[0]} $version by now"

    if declare -F "lay_out_${packages[0]//-/_}" >/dev/null; then "lay_out_${packages[0]//-/_}" "$tree"; fi
    tar -C "$tree" -c --numeric-owner --owner=0 --group=0 . |
        docker import "${change[@]}" --change "LABEL infra-sentinel.source=debian-$suite-${packages[0]}-$version" - "$image" >/dev/null ||
        die "the engine did not take $image"
    docker run --rm --label infra-sentinel=image-check --network none --entrypoint "" "$image" \
        "$(sed -n 's/^ENTRYPOINT \["\([^"]*\)".*/\1/p' < <(printf '%s\n' "$@"))" "$(version_flag "${packages[0]}")" >"$work/check" 2>&1 || {
        cat "$work/check" >&2
        docker rmi -f "$image" >/dev/null
        die "$image was assembled and does not run"
    }
}
version_flag() { if [[ "$1" == nginx ]]; then echo -v; else echo --version; fi; }

# What the official images have in other places than Debian's packages.
lay_out_prometheus() {
    mkdir -p "$1/prometheus"
    chmod 1777 "$1/prometheus"
}
lay_out_prometheus_alertmanager() {
    ln -sf prometheus-alertmanager "$1/usr/bin/alertmanager"
    mkdir -p "$1/alertmanager" "$1/etc/alertmanager"
    chmod 1777 "$1/alertmanager"
}
lay_out_prometheus_nginx_exporter() {
    ln -sf prometheus-nginx-exporter "$1/usr/bin/nginx-prometheus-exporter"
}
lay_out_nginx() {
    local tree="$1"
    rm -rf "$tree/etc/nginx"/{sites-enabled,sites-available,modules-enabled,conf.d,snippets}
    mkdir -p "$tree/etc/nginx/conf.d" "$tree/var/lib/nginx" "$tree/var/log/nginx" "$tree/var/cache/nginx"
    ln -sf /dev/stdout "$tree/var/log/nginx/access.log"
    ln -sf /dev/stderr "$tree/var/log/nginx/error.log"
    cat >"$tree/etc/nginx/nginx.conf" <<'CONF'
user nginx;
worker_processes auto;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;

events {
    worker_connections 1024;
}

http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log combined;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
CONF
    cat >"$tree/etc/nginx/conf.d/default.conf" <<'CONF'
server {
    listen 80;

    location / {
        root /usr/share/nginx/html;
        index index.html;
    }
}
CONF
}

# The base of the image that is built from a Dockerfile: Debian with apt, as small as the official one.
bootstrap_base() {
    local image="$1" base="${1#debian:}"
    base="${base%-slim}"
    apt_install mmdebstrap debian-archive-keyring
    say "bootstrapping $image from Debian's archive (once, about a minute)"
    patiently "bootstrapping $image" bootstrap_into "$base" "$work/base.tar" || die "mmdebstrap could not make $image"
    docker import --change 'CMD ["bash"]' --change "LABEL infra-sentinel.source=debian-$base-mmdebstrap" \
        "$work/base.tar" "$image" >/dev/null || die "the engine did not take $image"
    rm -f "$work/base.tar"
}
bootstrap_into() {
    # usr-is-merged keeps usrmerge, and with it perl, out; without pkgcache every `RUN apt-get` of a
    # Dockerfile is 75 MB smaller. The rest is what the official slim images leave out as well.
    debian_sources "$1" >"$work/sources"
    mmdebstrap --quiet --variant=apt --include=usr-is-merged \
        --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --aptopt='Acquire::Languages "none"' --aptopt='Acquire::GzipIndexes "true"' \
        --aptopt='Apt::AutoRemove::SuggestsImportant "false"' \
        --aptopt='Dir::Cache::pkgcache ""' --aptopt='Dir::Cache::srcpkgcache ""' \
        "$1" "$2" "$work/sources"
}

make_locally() {
    on_debian || die "no registry gives $1, and it can be assembled only where apt-get is" "try again with a network"
    case "$1" in
    "$nginx")
        assemble "$1" "nginx nginx-common libcrypt1 libpcre2-8-0 libssl3t64 zlib1g libzstd1" \
            'ENTRYPOINT ["/usr/sbin/nginx"]' 'CMD ["-g","daemon off;"]' 'EXPOSE 80'
        ;;
    "$exporter")
        assemble "$1" prometheus-nginx-exporter 'ENTRYPOINT ["/usr/bin/nginx-prometheus-exporter"]' \
            'USER 65534:65534' 'EXPOSE 9113'
        ;;
    "$prometheus")
        assemble "$1" prometheus 'ENTRYPOINT ["/bin/prometheus"]' \
            'CMD ["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]' \
            'USER nobody' 'WORKDIR /prometheus' 'EXPOSE 9090'
        ;;
    "$alertmanager")
        assemble "$1" prometheus-alertmanager 'ENTRYPOINT ["/bin/alertmanager"]' \
            'CMD ["--config.file=/etc/alertmanager/alertmanager.yml","--storage.path=/alertmanager"]' \
            'USER nobody' 'WORKDIR /alertmanager' 'EXPOSE 9093'
        ;;
    debian:*) bootstrap_base "$1" ;;
    *) die "no registry gives $1, and it is none of the stack's images" ;;
    esac
}

docker info >/dev/null 2>&1 || die "no Docker engine answers" "run '$setup/docker.sh start'"
wanted=("$nginx" "$exporter" "$prometheus" "$alertmanager" "$("$setup/base-image")")
registry="${IMAGES:-auto}"
[[ "$registry" =~ ^(auto|pull|local)$ ]] || die "IMAGES=$registry is not known" "auto, pull or local"
for image in "${wanted[@]}"; do
    if docker image inspect "$image" >/dev/null 2>&1; then continue; fi
    if [[ "$registry" != local ]]; then
        status=0
        pull "$image" || status=$?
        ((status)) || continue
        if ((status == 2)) && [[ "$registry" == auto ]]; then
            note "no registry answers: the images are made here"
            registry=local
        elif [[ "$registry" == pull ]]; then
            die "$image could not be pulled" "IMAGES=auto makes what cannot be pulled from Debian's packages"
        fi
    fi
    make_locally "$image"
done

# The part of sentinel's image that waits for no build. The engine keeps it, and the image's own build finds it.
base=infra-sentinel/base:${SENTINEL_TAG:-dev}
say "building the base of sentinel's image"
patiently "building the base of sentinel's image" "$setup/compose" -f - build sentinel <<<"services: {sentinel: {image: '$base', build: {target: base}}}" ||
    die "the base of sentinel's image could not be built" "its own words are above"
