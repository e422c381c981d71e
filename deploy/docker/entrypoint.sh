#!/usr/bin/env bash
# What a container of the image is, by its first word:
#   driver, executor   as Spark on Kubernetes starts them
#   master, worker     of a standalone cluster; a worker is given the master's address
#   pipeline           python -m pipeline; topics, generator: its other programs
#   submit             spark-submit with the connector's jars
set -euo pipefail
role=${1:-pipeline}
[ $# -gt 0 ] && shift
connector=$(printf ',%s' /opt/pipeline/jars/*.jar)
connector=${connector:1}
opens="--add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.lang.invoke=ALL-UNNAMED --add-opens=java.base/java.io=ALL-UNNAMED --add-opens=java.base/java.net=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.util.concurrent=ALL-UNNAMED --add-opens=java.base/sun.nio.ch=ALL-UNNAMED"

case $role in
driver)
    exec spark-submit --conf "spark.driver.bindAddress=${SPARK_DRIVER_BIND_ADDRESS:?}" \
        --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=${SPARK_DRIVER_BIND_ADDRESS}" --deploy-mode client "$@"
    ;;
executor)
    options=()
    while IFS= read -r option; do options+=("$option"); done < <(env | grep '^SPARK_JAVA_OPT_' | sort -t_ -k4 -n | sed 's/[^=]*=//')
    # shellcheck disable=SC2086 # several options in one word
    exec java $opens "${options[@]}" "-Xms${SPARK_EXECUTOR_MEMORY:?}" "-Xmx${SPARK_EXECUTOR_MEMORY}" \
        -cp "${SPARK_HOME}/jars/*:${SPARK_CLASSPATH:-}" \
        org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
        --driver-url "${SPARK_DRIVER_URL:?}" --executor-id "${SPARK_EXECUTOR_ID:?}" --cores "${SPARK_EXECUTOR_CORES:?}" \
        --app-id "${SPARK_APPLICATION_ID:?}" --hostname "${SPARK_EXECUTOR_POD_IP:?}" \
        --resourceProfileId "${SPARK_RESOURCE_PROFILE_ID:-0}" --podName "${SPARK_EXECUTOR_POD_NAME:-}"
    ;;
master) exec "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.master.Master --host "$(hostname)" "$@" ;;
worker) exec "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.worker.Worker --work-dir /tmp/work "$@" ;;
submit) exec spark-submit --jars "$connector" "$@" ;;
pipeline) exec python -m pipeline --jars /opt/pipeline/jars "$@" ;;
topics | generator) exec python -m "pipeline.$role" "$@" ;;
*) exec "$role" "$@" ;;
esac
