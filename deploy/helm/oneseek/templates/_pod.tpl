{{/* The container's environment variables: those that the chart sets, the API keys, and the user's own. */}}
{{- define "oneseek.environment" -}}
env:
  - {name: ONESEEK_CONFIG, value: /etc/oneseek/oneseek.yaml}
  - {name: ONESEEK_HOST, value: 0.0.0.0}
  - {name: ONESEEK_PORT, value: {{ .Values.port | quote }}}
  - {name: ONESEEK_HOME, value: /var/lib/oneseek}
  # Folders into which vLLM, its compilers and Hugging Face's libraries write.
  - {name: HOME, value: /cache}
  - {name: XDG_CACHE_HOME, value: /cache}
  - {name: VLLM_CACHE_ROOT, value: /cache/vllm}
  - {name: TRITON_CACHE_DIR, value: /cache/triton}
  {{- range $key := list "api_keys" "admin_keys" "metrics_keys" }}
  {{- if $.Values.keys.existingSecret }}
  - name: ONESEEK_{{ upper $key }}
    valueFrom:
      secretKeyRef: {name: {{ $.Values.keys.existingSecret }}, key: {{ $key }}, optional: true}
  {{- end }}
  {{- end }}
  {{- $cpu := ternary "limits.cpu" "requests.cpu" (hasKey (.Values.resources.limits | default dict) "cpu") }}
  {{- if not (or .Values.gpu.count (hasKey .Values.config "threads")) }}
  # Without this variable, the server uses a thread for each core of the node.
  - name: ONESEEK_THREADS
    valueFrom: {resourceFieldRef: {resource: {{ $cpu }}, divisor: "1"}}
  {{- end }}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Rules for the nodes on which the pods are placed. */}}
{{- define "oneseek.placement" -}}
topologySpreadConstraints:
  {{- if .Values.topologySpreadConstraints }}
  {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "oneseek.selector" . | nindent 8 }}
  {{- end }}
{{- $tolerations := .Values.tolerations }}
{{- if .Values.gpu.count }}
{{- $tolerations = append $tolerations (dict "key" .Values.gpu.resource "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
