-- No further pod starts to change; those that have started come to rest.
obj.spec.mode = "Paused"
return obj
