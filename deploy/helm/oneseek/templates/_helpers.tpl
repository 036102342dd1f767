{{- define "oneseek.name" -}}
{{- if contains "oneseek" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-oneseek" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "oneseek.selector" -}}
app.kubernetes.io/name: oneseek
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "oneseek.labels" -}}
{{ include "oneseek.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "oneseek.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The volume for one entry of storage: a claim, or an emptyDir that is deleted with the pod. */}}
{{- define "oneseek.volume" -}}
{{- $storage := index .root.Values.storage .part -}}
- name: {{ .part }}
{{- if or $storage.existingClaim $storage.size }}
  persistentVolumeClaim:
    claimName: {{ $storage.existingClaim | default (printf "%s-%s" (include "oneseek.name" .root) .part) }}
{{- else if $storage.limit }}
  emptyDir: {sizeLimit: {{ $storage.limit }}}
{{- else }}
  emptyDir: {}
{{- end }}
{{- end -}}

{{/* A server setting in seconds, rounded up. If config does not set it, the server's default is used. */}}
{{- define "oneseek.seconds" -}}
{{- if hasKey .root.Values.config .setting -}}
{{- ceil (float64 (index .root.Values.config .setting)) | int -}}
{{- else -}}
{{- .default -}}
{{- end -}}
{{- end -}}

{{/* terminationGracePeriodSeconds: preStopSeconds, drain_delay, drain_seconds, 5 s for the last events of streams, 5 s to spare. */}}
{{- define "oneseek.grace" -}}
{{- $delay := include "oneseek.seconds" (dict "root" . "setting" "drain_delay" "default" 0) | int -}}
{{- $drain := include "oneseek.seconds" (dict "root" . "setting" "drain_seconds" "default" 30) | int -}}
{{- add (int .Values.preStopSeconds) $delay $drain 10 -}}
{{- end -}}

{{/* "true" if the registry's volume can be mounted by one pod at a time only. */}}
{{- define "oneseek.single" -}}
{{- with .Values.storage.home -}}
{{- if and (or .existingClaim .size) (not (has "ReadWriteMany" .accessModes)) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fail for values that cannot work, before anything is installed. */}}
{{- define "oneseek.check" -}}
{{- range $name := list "host" "port" "home" -}}
{{- if hasKey $.Values.config $name -}}
{{- fail (printf "config.%s: the chart sets it; for the port use the value port, for the home storage.home" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "api_keys" "admin_keys" "metrics_keys" -}}
{{- if hasKey $.Values.config $name -}}
{{- fail (printf "config.%s: a ConfigMap is no place for keys; put them into a Secret and name it in keys.existingSecret" $name) -}}
{{- end -}}
{{- end -}}
{{- $most := ternary .Values.replicas .Values.autoscaling.maxReplicas (eq .Values.autoscaling.kind "none") -}}
{{- if and (include "oneseek.single" .) (gt (int $most) 1) -}}
{{- fail (printf "storage.home.accessModes: %d pods share the registry, which %s does not allow; use ReadWriteMany, or one replica" (int $most) (join ", " .Values.storage.home.accessModes)) -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas: %d is above autoscaling.maxReplicas, %d" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}
{{- range $name := list "adapter_urls" "external_models" -}}
{{- if index $.Values.config $name -}}
{{- fail (printf "networkPolicy.egress: config.%s needs the network, and the policy allows DNS alone; list rules, or set networkPolicy.enabled to false" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
