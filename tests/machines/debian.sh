# Packages of Debian's unstable in a folder of their own; to be sourced. Needs Debian's apt-get and dpkg, and no root.
# Sets APT_CONFIG: an apt with lists and a cache of its own, which takes nothing as installed, and the machine's mirror.

folder_of_apt() { # FOLDER
    local apt=$1 mirror
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep '/debian/$' | head -n 1) || true
    [ -n "$mirror" ] || { echo "apt-get knows no mirror of Debian: this needs a machine with Debian" >&2; exit 1; }
    for kind in "deb [arch=amd64,arm64" "deb-src ["; do
        echo "$kind signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror ${SUITE:-sid} main"
    done >"$apt/sources.list"
    {
        echo "Dir::State::lists \"$apt/lists\"; Dir::State::status \"$apt/status\"; Dir::Cache \"$apt/cache\";"
        echo "Dir::Etc::sourcelist \"$apt/sources.list\"; Dir::Etc::sourceparts \"/dev/null\"; Dir::Etc::preferencesparts \"/dev/null\";"
        echo 'APT::Architectures { "amd64"; "arm64"; }; Acquire::Check-Valid-Until "false";'
    } >"$apt/apt.conf"
    export APT_CONFIG=$apt/apt.conf
    apt-get -qq update
}

unpack_debian() { # FOLDER PACKAGE...: unpacks packages, and all that they need, into FOLDER/root
    local root=$1/root
    folder_of_apt "$1/apt"
    apt-get -qq --yes --download-only --no-install-recommends install "${@:2}"
    unset APT_CONFIG
    mkdir -p "$root/usr/lib" "$root/usr/lib64" "$root/usr/bin" "$root/usr/sbin"
    for link in lib lib64 bin sbin; do ln -sfn "usr/$link" "$root/$link"; done
    for package in "$1"/apt/cache/archives/*.deb; do dpkg -x "$package" "$root"; done
}

rustc_of_debian() { # FOLDER: FOLDER/rustc starts the unpacked rustc with the libraries that it was unpacked with
    local usr=$1/root/usr
    {
        echo '#!/bin/sh'
        echo "exec $usr/lib64/ld-linux-x86-64.so.2 --library-path $usr/lib/x86_64-linux-gnu $usr/bin/rustc --sysroot $usr \"\$@\""
    } >"$1/rustc"
    chmod +x "$1/rustc"
    export RUSTC=$1/rustc
}
