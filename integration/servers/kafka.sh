#!/usr/bin/env bash
# One Apache Kafka broker (KRaft: broker and controller in one process) on 127.0.0.1, for tests.
#
#   kafka.sh fetch            brings the jars by Maven (44 MB) unless they are there
#   kafka.sh run DIR PORT     formats DIR/data if it is new, then becomes the broker; its state is in DIR
#
# Ports: PORT plain text, PORT+1 controller; with KAFKA_PROXIED=P also PORT+5, plain text, which tells its clients to
# connect to port P (of a proxy in front of it); with KAFKA_SECURE=1 also PORT+2 SASL_PLAINTEXT, PORT+3 SSL, PORT+4
# SASL_SSL (PLAIN and SCRAM-SHA-256; users admin/admin-secret, who may do everything, and alice/alice-secret, who may
# do what ACLs allow; DIR/tls/ca.pem signs the server).
# Environment: FOREBAY_KAFKA_CACHE (where the jars are), KAFKA_HEAP (256m).
# Needs bash, Java 17 or later, and for `fetch` Maven; openssl for KAFKA_SECURE. Exits 69 when one is missing.
set -euo pipefail

version=4.3.1
slf4j=1.7.36 # Kafka speaks slf4j 1.7: a later binding would be silent
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.6.1
cluster=AAAAAAAAQACAAAAAAAAAAQ # any fixed id will do: it has to agree with DIR/data only

if [ -n "${FOREBAY_KAFKA_CACHE:-}" ]; then cache=$FOREBAY_KAFKA_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/forebay/kafka
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/forebay/kafka; fi
jars=$cache/$version

missing() {
  echo "kafka.sh: $1" >&2
  exit 69
}

fetch() {
  [ ! -d "$jars" ] || return 0
  command -v mvn >/dev/null || missing "cannot fetch Kafka without Maven: apt-get install maven"
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # two test runs may begin at once
  [ ! -d "$jars" ] || return 0
  local fresh=$cache/fresh
  rm -rf "$fresh"
  mkdir "$fresh"
  cat >"$fresh/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka-jars</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>$slf4j</version></dependency>
  </dependencies>
</project>
XML
  mvn -B -q -f "$fresh/pom.xml" "$plugin:copy-dependencies" -DincludeScope=runtime -DoutputDirectory="$fresh/jars" >&2 ||
    missing "cannot fetch Kafka from Maven Central: connect this machine to it and try again"
  mv "$fresh/jars" "$jars" # only now does it have its name: half of it is never used
  rm -rf "$fresh"
}

make_certificates() {
  [ ! -e "$dir/tls/server.pem" ] || return 0
  command -v openssl >/dev/null || missing "cannot make certificates without openssl: apt-get install openssl"
  mkdir -p "$dir/tls"
  cd "$dir/tls"
  openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=test-ca \
    -addext basicConstraints=critical,CA:TRUE
  openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost
  openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.crt \
    -extfile <(echo subjectAltName=DNS:localhost,IP:127.0.0.1)
  cat server.key server.crt >server.pem # Kafka reads PEM: a key and its certificate in one file
  cd - >/dev/null
}

properties() {
  local listeners="PLAINTEXT://127.0.0.1:$port" advertised protocols=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
  if [ -n "${KAFKA_SECURE:-}" ]; then
    listeners+=",SASL_PLAINTEXT://127.0.0.1:$((port + 2)),SSL://127.0.0.1:$((port + 3)),SASL_SSL://127.0.0.1:$((port + 4))"
    protocols+=,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL
  fi
  advertised=$listeners
  if [ -n "${KAFKA_PROXIED:-}" ]; then
    listeners+=",PROXIED://127.0.0.1:$((port + 5))"
    advertised+=",PROXIED://127.0.0.1:$KAFKA_PROXIED"
    protocols+=,PROXIED:PLAINTEXT
  fi
  cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=$listeners,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=$advertised
listener.security.protocol.map=$protocols
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
# one replica everywhere, and small topics of its own
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2
# tests do not wait, and they name their topics
group.initial.rebalance.delay.ms=0
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=500
auto.create.topics.enable=false
# after kill -9 the next broker is let in when the session of the last (9 s by default) is over
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
# the default of the cleaner alone is 128 MB of the heap
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=2
num.io.threads=4
PROPERTIES
  [ -n "${KAFKA_SECURE:-}" ] || return 0
  local plain='org.apache.kafka.common.security.plain.PlainLoginModule required user_admin="admin-secret" user_alice="alice-secret";'
  local scram='org.apache.kafka.common.security.scram.ScramLoginModule required;'
  cat <<PROPERTIES
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl_plaintext.plain.sasl.jaas.config=$plain
listener.name.sasl_ssl.plain.sasl.jaas.config=$plain
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=$scram
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=$scram
ssl.keystore.type=PEM
ssl.keystore.location=$dir/tls/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$dir/tls/ca.pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin
PROPERTIES
}

run() {
  command -v java >/dev/null || missing "cannot run Kafka without Java 17 or later: apt-get install openjdk-17-jre-headless"
  [ -d "$jars" ] || missing "cannot find Kafka in $jars: run integration/servers/kafka.sh fetch"
  local jvm=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Djava.awt.headless=true -cp "$jars/*") users=()
  if [ -n "${KAFKA_SECURE:-}" ]; then
    make_certificates
    users=(--add-scram 'SCRAM-SHA-256=[name=admin,password=admin-secret]'
      --add-scram 'SCRAM-SHA-256=[name=alice,password=alice-secret]')
  fi
  properties >"$dir/server.properties"
  [ -e "$dir/data/meta.properties" ] ||
    java "${jvm[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=error kafka.tools.StorageTool \
      format -t "$cluster" -c "$dir/server.properties" ${users[@]+"${users[@]}"}
  # errors and warnings, and the one line that says it serves
  exec java -Xmx"${KAFKA_HEAP:-256m}" "${jvm[@]}" \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info \
    -Dorg.slf4j.simpleLogger.showDateTime=true -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS \
    kafka.Kafka "$dir/server.properties"
}

case "${1:-} $#" in
  "fetch 1") fetch ;;
  "run 3")
    dir=$(cd "$2" && pwd)
    port=$3
    run
    ;;
  *)
    sed -n '2,/^set /{/^#/p}' "$0" >&2
    exit 78
    ;;
esac
