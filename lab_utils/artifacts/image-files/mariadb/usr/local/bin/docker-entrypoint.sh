#!/bin/bash
# The part of the official image's entry point that the labs use: an empty data folder is filled first, with the root
# password, the database and the user that the environment asks for. Then the server takes this process's place.
set -euo pipefail
data=/var/lib/mysql
mkdir -p /run/mysqld
if [ "$(id -u)" = 0 ]; then chown mysql:mysql "$data" /run/mysqld; fi

if [ "${1:-}" = mariadbd ] && [ ! -d "$data/mysql" ]; then
    : "${MARIADB_ROOT_PASSWORD:=${MYSQL_ROOT_PASSWORD:-}}"
    if [ -z "$MARIADB_ROOT_PASSWORD" ] && [ -z "${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:-}" ]; then
        echo "Database is uninitialized and password option is not specified: set MARIADB_ROOT_PASSWORD" >&2
        exit 1
    fi
    mariadb-install-db --user=mysql --datadir="$data" --force --skip-test-db --skip-name-resolve \
        --auth-root-authentication-method=normal >&2
    quote() { printf "%s" "$1" | sed "s/[\\\\']/\\\\&/g"; }
    {
        echo "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';" # these have no password
        echo "FLUSH PRIVILEGES;"
        echo "ALTER USER root@localhost IDENTIFIED BY '$(quote "$MARIADB_ROOT_PASSWORD")';"
        echo "CREATE USER root@'%' IDENTIFIED BY '$(quote "$MARIADB_ROOT_PASSWORD")';"
        echo "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
        database=${MARIADB_DATABASE:-${MYSQL_DATABASE:-}} user=${MARIADB_USER:-${MYSQL_USER:-}} password=${MARIADB_PASSWORD:-${MYSQL_PASSWORD:-}}
        if [ -n "$database" ]; then echo "CREATE DATABASE \`${database//\`/}\`;"; fi
        if [ -n "$user" ]; then
            echo "CREATE USER '$(quote "$user")'@'%' IDENTIFIED BY '$(quote "$password")';"
            if [ -n "$database" ]; then echo "GRANT ALL ON \`${database//\`/}\`.* TO '$(quote "$user")'@'%';"; fi
        fi
    } | mariadbd --user=mysql --datadir="$data" --bootstrap
fi
[ "${1:-}" = mariadbd ] && set -- "$@" --user=mysql --datadir="$data" --bind-address=0.0.0.0
exec "$@"
